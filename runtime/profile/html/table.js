// Tables that sort. A column: {label, unit, term, value: row => number or string or undefined, show: value => text or
// Node}. The term, of the definitions, is the label if no other is named. Numbers sort numerically, the largest first; words from A on; what is unknown comes last.
function sort_rows(body, rows, column, direction) {
  const known = (value) => value !== undefined && !Number.isNaN(value);
  const order = [...rows].sort((a, b) => {
    const x = a.values[column], y = b.values[column];
    if (!known(x) || !known(y)) return known(y) - known(x);
    const less = typeof x === 'number' ? x - y : x.localeCompare(y, 'en', {numeric: true});
    return direction * less || a.index - b.index;
  });
  body.append(...order.map((row) => row.element));
}

function data_table(name, columns, rows) {
  const body = make('tbody');
  const made = rows.map((row, index) => {
    const values = columns.map((column) => column.value(row));
    const cells = columns.map((column, i) => {
      const value = values[i];
      if (value === undefined) return make('td.none', '–');
      if (column.show) return make(typeof value === 'number' ? 'td' : 'td.word', column.show(value, row));
      return typeof value === 'number' ? make('td', digits(value)) : make('td.word', value, {title: value});
    });
    const element = make('tr', cells);
    body.append(element);
    return {values, element, index};
  });
  const is_word = columns.map((_, i) => made.some((row) => typeof row.values[i] === 'string'));
  const heads = columns.map((column, i) => {
    const term = column.term ?? column.label;
    if (!DEFINITIONS[term]) throw new Error(`no definition of ${term}`);
    const button = make('button', column.label, make('span.unit', column.unit || '\u00a0'), {type: 'button', 'data-term': term});
    const head = make(is_word[i] ? 'th.word' : 'th', button, {scope: 'col', 'aria-sort': 'none'});
    button.addEventListener('click', () => {
      const first = is_word[i] ? 1 : -1;
      const current = {ascending: 1, descending: -1, none: 0}[head.getAttribute('aria-sort')];
      const direction = current ? -current : first;
      for (const other of heads) other.setAttribute('aria-sort', 'none');
      head.setAttribute('aria-sort', direction > 0 ? 'ascending' : 'descending');
      sort_rows(body, made, i, direction);
    });
    return head;
  });
  const table = make('table', make('thead', make('tr', heads)), body, {'aria-label': name});
  return make('div.scroll', table, {tabindex: 0, role: 'region', 'aria-label': name});
}

// Columns of one unit all the way down. `key`: of the row, or a function of it.
const reader = (key) => (typeof key === 'function' ? key : (row) => row[key]);

function word_column(label, key, term) { return {label, term, value: reader(key)}; }

function number_column(label, key, rows, {unit = '', term, decimals} = {}) {
  const value = reader(key);
  const places = decimals ?? column_decimals(rows.map(value));
  return {label, unit, term, value, show: (v) => (v === 0 ? '0' : fixed(v, places))};
}

const ms_column = (label, key, rows, term) => number_column(label, key, rows, {unit: 'ms', term});

function bytes_column(label, key, rows, term) {
  const value = reader(key);
  const [factor, unit] = BYTES.find(([least]) => Math.max(0, ...rows.map(value).filter(Number.isFinite)) >= least) ?? BYTES.at(-1);
  const places = unit === 'B' ? 0 : column_decimals(rows.map((row) => value(row) / factor));
  return {label, unit, term, value, show: (v) => (v === 0 ? '0' : fixed(v / factor, Math.min(2, places)))};
}

function percent_column(label, key, term, unit = '%') {
  return {label, unit, term, value: reader(key), show: (v) => fixed(v * 100, 1)};
}

// Columns that no row has a value for are left out.
const with_values = (columns, rows) => columns.filter((column) => rows.some((row) => column.value(row) !== undefined));
