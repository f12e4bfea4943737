// One step of all ranks: a lane of a rank's own activities, and under it the operations it has in flight.
// Spans of one colour and lane are one shape, made of what is visible: 40,000 of them stay quick.
echarts.graphic.registerShape('spans', echarts.graphic.extendShape({
  shape: {edges: [], y: 0, height: 0},
  buildPath(path, shape) {
    for (let i = 0; i < shape.edges.length; i += 2) path.rect(shape.edges[i], shape.y, shape.edges[i + 1] - shape.edges[i], shape.height);
  },
}));

// Rows of operations in flight at the same time, at most three.
function pack_operations(spans) {
  const ends = [];
  for (const span of spans) {
    let row = ends.findIndex((end) => end <= span.begin);
    if (row < 0) row = ends.length < 3 ? ends.length : ends.indexOf(Math.min(...ends));
    ends[row] = Math.max(ends[row] ?? 0, span.end);
    span.row = row;
  }
  return ends.length;
}

function read_timeline(timeline, phases) {
  return timeline.ranks.map(({rank, offset_us, spans}) => {
    const all = spans.map(([lane, name, phase, layer, begin, length]) => ({
      lane, layer, name: timeline.names[name], phase: phases[phase] ?? 'other', family: family_of(timeline.names[name], lane),
      begin: (begin + offset_us) / 1e3, end: (begin + offset_us + length) / 1e3, row: 0}));
    all.sort((a, b) => a.begin - b.begin);
    return {rank, own: all.filter((s) => s.lane === 0), flight: all.filter((s) => s.lane === 1)};
  });
}

function timeline_section(profile) {
  const {timeline, phases} = profile;
  const nothing = timeline?.ranks.length ? undefined : 'The profile holds no timeline: no step of the window has spans of any rank.';
  const part = section('timeline', 'Step timeline', timeline &&
    `Step ${timeline.step}, the one of median length. ` +
    (profile.ranks.length > 1 ? 'Above in each row: what the rank did. Below: its operations in flight. Ranks are aligned by when their matched operations ended. ' : '') +
    (timeline.ranks.length < profile.ranks.length ? `${timeline.ranks.length} of ${profile.ranks.length} ranks are in the file. ` : '') +
    'Drag to move, Ctrl and wheel to zoom.', nothing);
  if (nothing) return;
  const ranks = read_timeline(timeline, phases);
  for (const rank of ranks) rank.rows = pack_operations(rank.flight);
  const several = ranks.some((rank) => rank.rows);
  const everything = ranks.flatMap((rank) => [...rank.own, ...rank.flight]);
  let first = 0, last = 0;
  for (const span of everything) { first = Math.min(first, span.begin); last = Math.max(last, span.end); }

  let colour_by = 'family';
  const hidden = new Set();
  const present = (key, order) => order.filter((what) => everything.some((span) => span[key] === what));
  const keys = {family: present('family', FAMILY_ORDER), phase: present('phase', phases)};

  // Items: spans of one rank, lane row and colour.
  function items() {
    const found = new Map();
    ranks.forEach((rank, index) => {
      for (const span of [...rank.own, ...rank.flight]) {
        const what = span[colour_by];
        if (hidden.has(what)) continue;
        const id = `${index}/${span.lane}/${span.row}/${what}`;
        if (!found.has(id)) found.set(id, {index, lane: span.lane, row: span.row, rows: rank.rows, what, spans: []});
        found.get(id).spans.push(span);
      }
    });
    return [...found.values()];
  }

  const lane_box = (band, lane, row, rows) => {
    const inner = band * 0.84, own = several ? inner * 0.64 : inner, each = (inner - own) / rows;
    const top = -inner / 2;
    return lane === 0 ? [top, own - Math.min(1, band * .05)] : [top + own + each * row, Math.max(.8, each - Math.min(1, each * .15))];
  };

  const runs = phase_runs(ranks[0].own);
  let drawn = items();
  const tall = Math.min(560, Math.max(150, ranks.length * (ranks.length <= 8 ? 46 : 22))) + 116;
  const tools = make('div.tools');
  part.append(tools);
  const held = chart(part, 'Timeline of the step on all ranks', tall, () => ({
    grid: {left: 62, right: ranks.length > 24 ? 44 : 26, top: 24, bottom: 62},
    xAxis: value_axis('', {min: first, max: last, axisLabel: {formatter: (v) => `${tick(v)} ms`, hideOverlap: true, showMaxLabel: false}, splitLine: {lineStyle: {color: colours.line}}}),
    yAxis: category_axis(ranks.map((r) => `rank ${r.rank}`), '', {inverse: true, splitLine: {show: ranks.length <= 16, lineStyle: {color: colours.line}, interval: 0}}),
    dataZoom: [
      {type: 'inside', xAxisIndex: 0, filterMode: 'none', zoomOnMouseWheel: 'ctrl', moveOnMouseMove: true, moveOnMouseWheel: false, minSpan: 0.02},
      {type: 'slider', xAxisIndex: 0, filterMode: 'none', height: 18, bottom: 10, showDataShadow: false, labelFormatter: (v) => `${tick(v)} ms`, ...slider_look()},
      ...(ranks.length > 24 ? [{type: 'slider', yAxisIndex: 0, filterMode: 'none', width: 14, right: 4, showDetail: false, showDataShadow: false, ...slider_look()}] : []),
    ],
    series: [{
      type: 'custom', clip: true, encode: {x: [1, 2], y: 0}, data: drawn.map((item) => [item.index, item.spans[0].begin, item.spans.at(-1).end]),
      renderItem(params, api) {
        const item = drawn[params.dataIndex];
        const area = params.coordSys;
        const [origin, middle] = api.coord([0, item.index]);
        const scale = api.coord([1, item.index])[0] - origin;
        const [top, height] = lane_box(api.size([0, 1])[1], item.lane, item.row, item.rows);
        if (middle + top > area.y + area.height || middle + top + height < area.y) return undefined;
        const edges = [];
        for (const span of item.spans) {
          const left = Math.max(area.x, origin + span.begin * scale);
          const right = Math.min(area.x + area.width, Math.max(origin + span.end * scale, left + 0.5));
          if (right <= area.x || left >= area.x + area.width) continue;
          // What begins where the one before ended becomes one rectangle.
          if (edges.length && left - edges.at(-1) < 0.15) edges[edges.length - 1] = Math.max(edges.at(-1), right);
          else edges.push(left, right);
        }
        return {type: 'spans', silent: true, shape: {edges, y: middle + top, height}, style: {fill: colours[item.what] ?? colours.other}};
      },
    }, phase_strip(runs)],
  }));
  timeline_hints(held.made, ranks, lane_box, (span) => !hidden.has(span[colour_by]));

  const redraw = () => {
    drawn = items();
    const {dataZoom} = held.made.getOption();
    held.draw();
    held.made.setOption({dataZoom: dataZoom.map(({start, end}) => ({start, end}))});
  };
  const show_key = () => {
    key.replaceChildren(...keys[colour_by].map((what) => make('button', swatch(colours[what] ?? colours.other), what, {
      type: 'button', 'aria-pressed': !hidden.has(what), onclick: (e) => {
        if (!hidden.delete(what)) hidden.add(what);
        e.currentTarget.setAttribute('aria-pressed', !hidden.has(what));
        redraw();
      }})));
  };
  const key = make('span.key', {role: 'group', 'aria-label': 'Shown'});
  const zoom = (change) => {
    const {start, end} = held.made.getOption().dataZoom[0];
    const [from, to] = change(start, end);
    held.made.dispatchAction({type: 'dataZoom', dataZoomIndex: 0, start: Math.max(0, from), end: Math.min(100, to)});
  };
  const zoom_button = (text, label, change) => make('button.plain', text, {type: 'button', 'aria-label': label, title: label, onclick: () => zoom(change)});
  tools.append(
    make('span', 'colours ', choice('Colours', [['family', 'kernel family'], ['phase', 'phase']], 'family', (value) => {
      colour_by = value;
      hidden.clear();
      show_key();
      redraw();
    })),
    make('span', zoom_button('+', 'Zoom in', (a, b) => [a + (b - a) / 4, b - (b - a) / 4]), ' ', zoom_button('−', 'Zoom out', (a, b) => [a - (b - a) / 2, b + (b - a) / 2]), ' ',
         zoom_button('◂', 'Earlier', (a, b) => { const by = Math.min(a, (b - a) / 2); return [a - by, b - by]; }), ' ',
         zoom_button('▸', 'Later', (a, b) => { const by = Math.min(100 - b, (b - a) / 2); return [a + by, b + by]; }), ' ', zoom_button('whole step', 'Show the whole step', () => [0, 100])),
    key);
  show_key();
  theme_listeners.push(show_key);
}

// What the first rank was at, from when to when.
function phase_runs(spans) {
  const runs = [];
  for (const span of spans) {
    if (span.phase === 'other') continue;
    if (runs.at(-1)?.phase === span.phase) runs.at(-1).end = span.end;
    else runs.push({phase: span.phase, begin: span.begin, end: span.end});
  }
  return runs;
}

// They stand above the lanes, as a line with its name where there is room for it.
const phase_strip = (runs) => ({
  type: 'custom', silent: true, encode: {x: [1, 2], y: 0}, data: runs.map((run) => [0, run.begin, run.end]),
  renderItem(params, api) {
    const run = runs[params.dataIndex];
    const area = params.coordSys;
    const left = Math.max(area.x, api.coord([run.begin, 0])[0]), right = Math.min(area.x + area.width, api.coord([run.end, 0])[0]);
    if (right <= left) return undefined;
    const line = {type: 'rect', shape: {x: left, y: area.y - 5, width: Math.max(1, right - left - 1), height: 2}, style: {fill: colours[run.phase] ?? colours.other}};
    const name = {type: 'text', style: {x: left, y: area.y - 8, text: run.phase, fill: colours.soft, fontSize: 11, fontFamily: common().textStyle.fontFamily, verticalAlign: 'bottom'}};
    return {type: 'group', children: right - left > run.phase.length * 7 ? [line, name] : [line]};
  },
});

// The span under the pointer, found by time: shapes hold many.
function timeline_hints(made, ranks, lane_box, shown) {
  const zr = made.getZr();
  zr.on('mousemove', (event) => {
    const at = [event.offsetX, event.offsetY];
    if (!made.containPixel({gridIndex: 0}, at)) return hide_hint();
    const [time, index] = made.convertFromPixel({gridIndex: 0}, at);
    const rank = ranks[index];
    if (!rank) return hide_hint();
    const [, middle] = made.convertToPixel({gridIndex: 0}, [time, index]);
    const band = ranks.length > 1
      ? Math.abs(made.convertToPixel({gridIndex: 0}, [time, index ? index - 1 : 1])[1] - middle) : made.getHeight() - 80;
    const slack = Math.abs(made.convertFromPixel({gridIndex: 0}, [at[0] + 2, at[1]])[0] - time);
    const inside = (span) => {
      const [top, height] = lane_box(band, span.lane, span.row, rank.rows);
      return at[1] >= middle + top - 1 && at[1] <= middle + top + height + 1 && shown(span) && time >= span.begin - slack && time <= span.end + slack;
    };
    const span = [...rank.own, ...rank.flight].filter(inside).sort((a, b) => (a.end - a.begin) - (b.end - b.begin))[0];
    if (!span) return hide_hint();
    hint_box.replaceChildren(tip(span.name, [
      [undefined, 'rank', String(rank.rank)], [undefined, 'took', time_text(span.end - span.begin)], [undefined, 'from', `${digits(span.begin, 5)} ms`],
      [undefined, 'phase', span.phase], ...(span.layer >= 0 ? [[undefined, 'layer', String(span.layer)]] : []),
      [undefined, 'kind', span.lane ? 'operation in flight' : span.family]]));
    const box = made.getDom().getBoundingClientRect();
    return place_hint(box.left + at[0] + 14, box.top + at[1], 18);
  });
  zr.on('globalout', hide_hint);
}
