// Elements, hints and sections. Text from the profile reaches the page through textContent alone.
const main = document.getElementById('report');
const hint_box = document.getElementById('hint');

// make('p.lead', 'text', child, {title: '…'}): an element with classes, children and attributes.
function make(what, ...children) {
  const [name, ...classes] = what.split('.');
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(' ');
  for (const child of children.flat()) {
    if (child === undefined || child === null) continue;
    if (child instanceof Node || typeof child === 'string' || typeof child === 'number') element.append(child);
    else for (const [key, value] of Object.entries(child)) {
      if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value);
    }
  }
  return element;
}

function place_hint(x, y, below) {
  hint_box.hidden = false;
  const width = hint_box.offsetWidth, height = hint_box.offsetHeight;
  const left = Math.max(8, Math.min(x, document.documentElement.clientWidth - width - 8));
  const fits = y + below + height < innerHeight;
  hint_box.style.left = `${left + scrollX}px`;
  hint_box.style.top = `${(fits ? y + below : Math.max(4, y - height - 8)) + scrollY}px`;
}

function hide_hint() { hint_box.hidden = true; }

// Definitions appear on hover and on focus, and go with Escape.
function show_definition(element) {
  const term = element.dataset.term;
  hint_box.replaceChildren(make('b', term), DEFINITIONS[term]);
  element.setAttribute('aria-describedby', 'hint');
  const box = element.getBoundingClientRect();
  place_hint(box.left, box.top, box.height + 6);
}
for (const event of ['mouseover', 'focusin', 'click']) {
  document.addEventListener(event, (e) => {
    const element = e.target.closest?.('[data-term]');
    if (element) show_definition(element);
  });
}
for (const event of ['mouseout', 'focusout']) {
  document.addEventListener(event, (e) => { if (e.target.closest?.('[data-term]')) hide_hint(); });
}
document.addEventListener('keydown', (e) => { if (e.key === 'Escape') hide_hint(); });

function help(term) {
  if (!DEFINITIONS[term]) throw new Error(`no definition of ${term}`);
  return make('button.help', '?', {type: 'button', 'data-term': term, 'aria-label': `What is ${term}?`});
}

const contents = document.getElementById('contents');

// A section with its entry in the rail. `why`: one line in place of the content, when there is none.
function section(id, title, lead, why, terms = []) {
  const link = make('a', title, {href: `#${id}`});
  if (why) link.classList.add('absent');
  contents.append(make('li', link));
  const element = make('section', make('h2', title, ...terms.map(help)), {id});
  if (why) element.append(make('p.absent-why', why));
  else if (lead) element.append(make('p.lead', lead));
  main.append(element);
  return element;
}

function follow_scrolling() {
  const links = new Map([...contents.querySelectorAll('a')].map((a) => [a.hash.slice(1), a]));
  const sections = [...main.querySelectorAll('section')];
  const mark = () => {
    const passed = sections.filter((s) => s.getBoundingClientRect().top < innerHeight / 3);
    const at_end = scrollY + innerHeight >= document.documentElement.scrollHeight - 4;
    const here = (at_end ? sections : passed).at(-1)?.id;
    for (const [id, link] of links) link.classList.toggle('here', id === here);
  };
  addEventListener('scroll', mark, {passive: true});
  mark();
}

// Buttons of which one is pressed: [value, text] each. `changed` gets the value.
function choice(label, options, chosen, changed) {
  const group = make('span.choice', {role: 'group', 'aria-label': label});
  for (const [value, text] of options) {
    group.append(make('button', text, {type: 'button', 'aria-pressed': value === chosen, onclick: (e) => {
      for (const other of group.children) other.setAttribute('aria-pressed', other === e.currentTarget);
      changed(value);
    }}));
  }
  return group;
}

const swatch = (colour) => {
  const mark = make('span.swatch');
  mark.style.background = colour;
  return mark;
};
