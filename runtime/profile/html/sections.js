// Charts and tables of the measurements, top to bottom.
function ranks_section({ranks, each, step, window: seen, operations}) {
  const part = section('ranks', 'Ranks and steps', 'Where the time of a step goes: by rank (means over the steps), and by step (means over the ranks). Waiting for other ranks is a part of communication.', undefined);
  const pair = make('div.pair');
  part.append(pair);
  const by_rank = make('div', make('h3', 'By rank')), by_step = make('div', make('h3', 'By step'));
  pair.append(by_rank, by_step);
  let sorted = '';
  if (ranks.length > 2) {
    const orders = [['', 'rank'], ['compute_ms', 'compute'], ['exposed_ms', 'exposed'], ['caused_wait_ms', 'caused wait']];
    by_rank.firstChild.append(make('span.beside', 'order by ', choice('Order', orders, sorted, (key) => { sorted = key; bars.draw(); })));
  }
  const bars = stacked_bars(by_rank, 'Step of each rank by its parts', {
    order: () => (sorted ? [...ranks.keys()].sort((a, b) => ranks[b][sorted] - ranks[a][sorted]) : undefined),
    categories: ranks.map((r) => String(r.rank)), axis_name: 'rank', unit: 'ms',
    parts: PARTS.map(([name, key]) => [name, ranks.map((r) => r[key])]), show: time_text,
    title: (i) => `rank ${ranks[i].rank} on ${ranks[i].host}: ${time_text(ranks[i].step_ms)}`,
  });
  stacked_bars(by_step, 'Each step of the window by its parts', {
    categories: step.each_seconds.map((_, i) => String(seen.first_step + i)), axis_name: 'step', unit: 'ms',
    parts: PARTS.map(([name, , key]) => [name, each[key]]), line: ranks.length > 1 ? ['waiting', each.waiting] : undefined, show: time_text,
    title: (i) => `step ${seen.first_step + i}: ${time_text(step.each_seconds[i] * 1e3)}`,
  });
  part.append(data_table('Ranks', [
    number_column('rank', 'rank', ranks, {decimals: 0}), word_column('host', 'host'), ms_column('step', 'step_ms', ranks, 'step'),
    ...PARTS.map(([name, key]) => ms_column(name === 'exposed communication' ? 'exposed' : name, key, ranks, name)),
    ms_column('communication', 'communication_ms', ranks, 'communication'), ms_column('wait', 'wait_ms', ranks, 'wait'),
    ms_column('caused wait', 'caused_wait_ms', ranks, 'caused wait'), bytes_column('sent', 'sent_bytes', ranks, 'sent'),
    number_column('tokens', 'tokens', ranks, {decimals: 0}),
  ], ranks));
  if (operations.length) group_chart(part, operations);
}

// Operations of one group next to each other: what moved, and what waited.
function group_chart(part, operations) {
  const groups = [...new Set(operations.map((row) => row.group))];
  const rows = operations.filter((row) => row.transfer_ms + row.wait_ms > 0)
    .sort((a, b) => groups.indexOf(a.group) - groups.indexOf(b.group) || b.transfer_ms + b.wait_ms - a.transfer_ms - a.wait_ms);
  const box = make('div', make('h3', 'Communication by group', help('transfer')));
  box.style.marginTop = '26px';
  part.append(box);
  const label = (row) => `${row.group}   ${row.op}, ${row.phase}`;
  chart(box, 'Transfer and wait by group of ranks and operation', 60 + 27 * rows.length, () => ({
    legend: legend(), grid: {left: 252, right: 30, top: 32, bottom: 26},
    xAxis: value_axis('', {axisLabel: {formatter: (v) => `${tick(v)} ms`}}), yAxis: category_axis(rows.map(label), '', {inverse: true, axisLabel: {
      formatter: (_, i) => `{group|${rows[i].group}}{what|${rows[i].op}, ${rows[i].phase}}`,
      rich: {group: {width: 78, align: 'left', color: colours.soft, fontSize: 12}, what: {width: 160, align: 'left', color: colours.ink, fontSize: 12}}}}),
    tooltip: tooltip((points) => {
      const row = rows[points[0].dataIndex];
      return tip(label(row), [...points.map((p) => [p.color, p.seriesName, time_text(p.value)]), [undefined, 'payload', bytes_text(row.payload_bytes)]],
                 make('div', GROUPS[row.group] ?? ''));
    }, {trigger: 'axis', axisPointer: {type: 'shadow', shadowStyle: {color: colours.ink, opacity: .06}}}),
    series: ['transfer', 'wait'].map((what) => ({type: 'bar', stack: 'all', name: what, data: rows.map((row) => row[`${what}_ms`]), barMaxWidth: 16,
      itemStyle: {color: colours[what]}, emphasis: {disabled: true}})),
  }));
}

function heads_section({heads}) {
  const nothing = heads ? undefined : 'No selection was recorded: dense attention has none.';
  const part = section('coverage', 'Selection by layer and head', 'Means over ranks and steps.', nothing, heads ? ['coverage', 'density'] : []);
  if (nothing) return;
  let what = heads.coverage ? 'coverage' : 'density';
  const tools = make('div.tools');
  part.append(tools);
  const layers = heads.density.length;
  const held = heat_map(part, 'Coverage or density by layer and head', Math.min(640, Math.max(220, 90 + 15 * layers)), {
    values: () => heads[what], ramp: () => colours.memory, x_name: 'head', y_name: 'layer', title: (head, layer) => `layer ${layer}, head ${head}: ${what}`, show: (v) => percent(v),
    largest: () => Math.max(1e-9, ...heads[what].flat()),
  });
  if (heads.coverage) {
    tools.append(choice('Shown', [['coverage', 'coverage'], ['density', 'density']], what, (value) => { what = value; held.draw(); }));
  } else {
    tools.append(make('span', 'Density. One outer rank holds all keys, so that there is no coverage.'));
  }
}

function bytes_section({bytes, bytes_block: block = 1, ranks, window: seen}) {
  const world = ranks.length + seen.missing_ranks.length;
  const nothing = bytes?.some((row) => row.some((value) => value > 0)) ? undefined
    : world === 1 ? 'One rank: nothing is sent.' : 'No bytes were counted between ranks.';
  const part = section('bytes', 'Bytes between ranks', `What a rank (row) sent to another one (column) in a step.${block > 1 ? ` A cell sums over ${block} × ${block} ranks.` : ''}${bytes?.length > 64 ? ' Ctrl and wheel to zoom, drag to move.' : ''}`, nothing,
                       nothing ? [] : ['payload']);
  if (nothing) return;
  const name = (i) => (block > 1 ? `${i * block}–${Math.min(world, (i + 1) * block) - 1}` : String(i));
  const side = Math.min(620, Math.max(280, 40 * bytes.length + 70));
  const held = heat_map(part, 'Bytes sent from rank to rank', side, {
    values: () => bytes, zeros: false, zoom: bytes.length > 64, ramp: () => colours.memory.slice(1), x_name: 'to rank', y_name: 'from rank', x_label: name, y_label: name, show: bytes_text,
    title: (to, from) => `rank ${name(from)} to rank ${name(to)}`, largest: () => Math.max(...bytes.map((row) => Math.max(...row))),
  });
  held.element.style.maxWidth = `${side + 100}px`;
}

function roofline_section({kernels, flops, ranks, window: seen}) {
  const counted = kernels.filter((k) => k.flops && k.bytes && k.ms > 0);
  const part = section('kernels', 'Kernels', 'Time of a rank and step by scope.', kernels.length ? undefined : 'No scope was recorded.', counted.length ? ['roofline'] : []);
  if (!kernels.length) return;
  if (counted.length) roofline(part, counted, flops, ranks.length + seen.missing_ranks.length);
  else part.append(make('p.absent-why', 'No roofline: no kernel of this job counts both its floating-point operations and its bytes.'));
  const total = kernels.reduce((sum, k) => sum + k.ms, 0);
  part.append(data_table('Kernels', with_values([
    word_column('kernel', 'name'), word_column('phase', 'phase'), number_column('calls', 'calls', kernels, {decimals: 0, term: 'calls'}), ms_column('time', 'ms', kernels),
    percent_column('of all scopes', (k) => k.ms / total), number_column('a call', (k) => (k.calls ? k.ms / k.calls : undefined), kernels, {unit: 'ms', decimals: 3}),
    number_column('work', (k) => k.flops && k.flops / 1e9, kernels, {unit: 'GFLOP'}), bytes_column('moved', 'bytes', kernels),
    number_column('intensity', (k) => k.flops && k.bytes && k.flops / k.bytes, kernels, {unit: 'FLOP/byte', term: 'intensity', decimals: 1}),
    number_column('speed', (k) => k.flops && k.flops / k.ms / 1e6, kernels, {unit: 'GFLOP/s', decimals: 1}),
    number_column('bandwidth', (k) => k.bytes && k.bytes / k.ms / 1e6, kernels, {unit: 'GB/s', decimals: 2}),
  ], kernels), kernels));
}

function roofline(part, counted, flops, ranks) {
  const points = counted.map((k) => ({name: k.name, ms: k.ms, x: k.flops / k.bytes, y: k.flops / k.ms / 1e6, bandwidth: k.bytes / k.ms / 1e6}));
  const best = points.reduce((a, b) => (b.y > a.y ? b : a));
  const widest = points.reduce((a, b) => (b.bandwidth > a.bandwidth ? b : a));
  const peak = flops?.peak_per_second ? flops.peak_per_second / ranks / 1e9 : undefined;
  const ceiling = peak ?? best.y;
  const ridge = ceiling / widest.bandwidth;
  const low = Math.min(ridge, ...points.map((p) => p.x)) / 2, high = Math.max(ridge, ...points.map((p) => p.x)) * 4;
  const power = (value, up) => 10 ** (up ? Math.ceil(Math.log10(value)) : Math.floor(Math.log10(value)));
  const most = Math.max(...points.map((p) => p.ms));
  const size = (p) => 8 + 22 * Math.sqrt(p.ms / most);
  const bottom = power(Math.min(low * widest.bandwidth, ...points.map((p) => p.y)) / 1.2, false);
  const places = points.map(() => 'right');
  const held = chart(part, 'Roofline of the kernels', 400, () => ({
    grid: {left: 12, right: 28, top: 34, bottom: 40, containLabel: true},
    xAxis: value_axis('FLOP / byte', {type: 'log', min: low, max: high, nameLocation: 'middle', nameGap: 28, nameTextStyle: {align: 'center'}, axisLabel: {showMinLabel: false, showMaxLabel: false}}),
    yAxis: value_axis('GFLOP/s', {type: 'log', min: bottom, max: power(ceiling * 1.05, true)}),
    tooltip: tooltip((p) => {
      const k = points[p.dataIndex];
      return k && tip(k.name, [[undefined, 'speed', `${digits(k.y)} GFLOP/s`], [undefined, 'bandwidth', `${digits(k.bandwidth)} GB/s`],
        [undefined, 'intensity', `${digits(k.x)} FLOP/byte`], [undefined, 'time of a step', time_text(k.ms)], [undefined, 'of its ceiling', percent(k.y / Math.min(ceiling, k.x * widest.bandwidth))]]);
    }),
    series: [
      {type: 'line', silent: true, symbol: 'none', lineStyle: {color: colours.soft, width: 1.5}, data: [[low, low * widest.bandwidth], [ridge, ceiling], [high, ceiling]],
       markPoint: {symbol: 'rect', symbolSize: 0.1, silent: true, data: [
         {coord: [high, ceiling], label: {show: true, position: 'top', align: 'right', offset: [0, 0], color: colours.soft,
           formatter: `${digits(ceiling)} GFLOP/s a rank, ${peak ? 'peak of the cluster description' : `best measured (${best.name})`}`}},
         {coord: [low, low * widest.bandwidth], label: {show: true, position: 'right', align: 'left', offset: [18, 0], color: colours.soft,
           formatter: `${digits(widest.bandwidth)} GB/s, best measured (${widest.name})`}}]}},
      {type: 'scatter', data: points.map((p, i) => ({value: [p.x, p.y], label: {position: places[i]}, itemStyle: {color: colours[family_of(p.name, 0)]}})),
       symbolSize: (_, p) => size(points[p.dataIndex]), itemStyle: {opacity: .85, borderColor: colours.paper, borderWidth: 1},
       label: {show: true, formatter: (p) => points[p.dataIndex].name, color: colours.ink, fontSize: 11.5}},
    ],
  }));
  const arrange = () => {
    const boxes = points.map((p) => [...held.made.convertToPixel({gridIndex: 0}, [p.x, p.y]), size(p) / 2, p.name.length * 6.3]);
    place_labels(boxes).forEach((place, i) => { places[i] = place; });
    held.draw();
  };
  new ResizeObserver(arrange).observe(held.element);
  part.append(make('p.lead', 'An area stands for the time of a step.'));
}

// The side of each point, [x, y, radius, width of its label], on which a label meets the fewest others; wide points first.
function place_labels(points) {
  const taken = points.map(([x, y, radius]) => [x - radius, y - radius, x + radius, y + radius]);
  const meets = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const order = points.map((_, i) => i).sort((a, b) => points[b][2] - points[a][2]);
  const places = [];
  for (const i of order) {
    const [x, y, radius, width] = points[i];
    const gap = radius + 5;
    const sides = {
      right: [x + gap, y - 7, x + gap + width, y + 7], left: [x - gap - width, y - 7, x - gap, y + 7],
      bottom: [x - width / 2, y + gap, x + width / 2, y + gap + 14], top: [x - width / 2, y - gap - 14, x + width / 2, y - gap],
    };
    const met = (box) => taken.filter((other, j) => j !== i && meets(box, other)).length;
    const best = Object.keys(sides).reduce((a, b) => (met(sides[b]) < met(sides[a]) ? b : a));
    taken.push(sides[best]);
    places[i] = best;
  }
  return places;
}

function prediction_section({prediction}) {
  const nothing = prediction ? undefined : 'No cluster description was given: --cluster CLUSTER.txtpb predicts the step and puts it here beside what was measured.';
  const part = section('prediction', 'Prediction beside measurement', prediction && `The planner's model on “${prediction.cluster}”.`, nothing, nothing ? [] : ['prediction']);
  if (nothing) return;
  const rows = prediction.rows;
  const largest = Math.max(0.05, ...rows.map((row) => Math.abs(row.error)).filter(Number.isFinite));
  const bar = (value) => {
    const fill = make('i'), width = Math.abs(value) / largest * 50;
    fill.style.cssText = `${value < 0 ? 'right' : 'left'}: 50%; width: ${width}%`;
    const paint = () => { fill.style.background = value < 0 ? colours['exposed communication'] : colours.compute; };
    theme_listeners.push(paint);
    paint();
    return make('span', make('span.error-bar', fill), make('span.error-value', `${value > 0 ? '+' : ''}${fixed(value * 100, 1)}`));
  };
  part.append(data_table('Prediction and measurement', [
    word_column('what', 'what'), ms_column('predicted', 'predicted_ms', rows), ms_column('measured', 'measured_ms', rows),
    number_column('difference', (row) => row.predicted_ms - row.measured_ms, rows, {unit: 'ms'}), {label: 'error', unit: '%', term: 'error', value: (row) => row.error, show: bar},
  ], rows));
  const advice = prediction.advice;
  if (advice) part.append(make('p.advice', make('b', advice.change), ` is predicted to save ${time_text(advice.saves_ms)} a step.`, make('code', advice.command)));
}
