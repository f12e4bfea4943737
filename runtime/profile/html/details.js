// The sections that are tables above all, and what the job was.
function slowest_section({slowest}) {
  const part = section('slowest', 'Slowest operations', 'Single operations, the longest first.', slowest.length ? undefined : 'No operation was recorded.');
  if (!slowest.length) return;
  const whole = {decimals: 0};
  part.append(data_table('Slowest operations', [
    ms_column('took', 'ms', slowest), ms_column('transfer', 'transfer_ms', slowest, 'transfer'), word_column('operation', 'op'), word_column('phase', 'phase'),
    word_column('group', (row) => `${row.group}[${row.index}]`), number_column('layer', (row) => (row.layer < 0 ? undefined : row.layer), slowest, whole),
    number_column('step', 'step', slowest, {...whole, term: 'step number'}), number_column('late rank', (row) => (row.late_rank < 0 ? undefined : row.late_rank), slowest, {...whole, term: 'late rank'}),
    number_column('sequence', 'sequence', slowest, whole),
  ], slowest));
}

function layers_section({layers, ranks}) {
  const part = section('layers', 'Layers', 'Per rank and step, forward and backward.', layers.length ? undefined : 'No transformer block was recorded.');
  if (!layers.length) return;
  stacked_bars(part, 'Compute and exposed communication of each layer', {
    categories: layers.map((row) => String(row.layer)), axis_name: 'layer', unit: 'ms', height: 230, show: time_text, title: (i) => `layer ${layers[i].layer}`,
    parts: [['compute', layers.map((row) => row.compute_ms)], ['exposed communication', layers.map((row) => row.exposed_ms)], ['wait', layers.map((row) => row.wait_ms), 'beside']],
  });
  const range = (key) => [['mean', 'mean'], ['min', 'least'], ['max', 'most']].map(([of, word]) => percent_column(key, (row) => row[key]?.[of], key, `% ${word}`));
  const several = ranks.length > 1 ? [percent_column('imbalance', 'imbalance', 'imbalance'), number_column('slowest rank', 'slowest_rank', layers, {decimals: 0, term: 'slowest rank'})] : [];
  part.append(data_table('Layers', with_values([
    number_column('layer', 'layer', layers, {decimals: 0}), ms_column('compute', 'compute_ms', layers, 'compute'), ms_column('communication', 'communication_ms', layers, 'communication'),
    ms_column('exposed', 'exposed_ms', layers, 'exposed communication'), ms_column('wait', 'wait_ms', layers, 'wait'), ...several, ...range('density'), ...range('coverage'),
  ], layers), layers));
}

function operations_section({operations, ranks}) {
  const part = section('operations', 'Operations', 'By group, operation and phase; per rank and step, sums over the calls.',
                       operations.length ? undefined : ranks.length === 1 ? 'One rank: nothing to communicate.' : 'No operation was recorded.');
  if (!operations.length) return;
  part.append(data_table('Operations', with_values([
    word_column('group', 'group'), word_column('operation', 'op'), word_column('phase', 'phase'), number_column('calls', 'calls', operations, {decimals: 0, term: 'calls'}),
    number_column('messages', 'messages', operations, {decimals: 0}), bytes_column('payload', 'payload_bytes', operations, 'payload'), bytes_column('wire', 'wire_bytes', operations, 'wire'),
    bytes_column('between nodes', 'between_nodes_bytes', operations, 'between nodes'), ms_column('transfer', 'transfer_ms', operations, 'transfer'), ms_column('wait', 'wait_ms', operations, 'wait'),
    percent_column('matched', 'matched', 'matched'), number_column('busbw', 'busbw_gb_s', operations, {unit: 'GB/s', term: 'busbw'}),
    number_column('link', 'link_gb_s', operations, {unit: 'GB/s', term: 'link'}), percent_column('of the link', 'link_share', 'link'),
  ], operations), operations));
  if (!operations.some((row) => row.link_gb_s !== undefined)) part.append(make('p.absent-why', 'Rates of the links: no cluster description was given (--cluster).'));
}

const MEMORY = [['parameters', 'parameters_bytes'], ['gradients', 'gradients_bytes'], ['moments', 'moments_bytes'], ['rest', 'rest_bytes']];

function memory_section({ranks, memory, remote_kv: kept}) {
  const known = ranks.filter((row) => row.memory);
  const part = section('memory', 'Memory', 'The peak of each rank by what it held.', known.length ? undefined : 'No rank reported its memory.', known.length ? ['rest of memory'] : []);
  if (!known.length) return;
  const [factor, unit] = BYTES.find(([least]) => Math.max(...known.map((row) => row.memory.peak_bytes)) >= least);
  stacked_bars(part, 'Memory of each rank by category', {
    categories: known.map((row) => String(row.rank)), axis_name: 'rank', unit, height: 260,
    parts: MEMORY.map(([name, key]) => [name, known.map((row) => row.memory[key] / factor)]), show: (v) => `${digits(v)} ${unit}`,
    title: (i) => `rank ${known[i].rank}: peak ${bytes_text(known[i].memory.peak_bytes)}`,
  });
  part.append(data_table('Memory', with_values([
    number_column('rank', 'rank', known, {decimals: 0}), bytes_column('peak', (row) => row.memory.peak_bytes, known, 'peak memory'),
    ...MEMORY.map(([name, key]) => bytes_column(name, (row) => row.memory[key], known, name === 'rest' ? 'rest of memory' : undefined)),
    bytes_column('peak of tensors', (row) => row.memory.tensors_peak_bytes, known),
  ], known), known));
  if (memory) part.append(make('p.advice', `Rank ${memory.rank} needs most: ${bytes_text(memory.peak_bytes)}.`));
  if (kept) part.append(make('p.advice', remote_kv_text(kept)));
}

function remote_kv_text(kept) {
  const what = kept.value === 'KEEP' ? 'K and V of other ranks are kept for the backward' : 'K and V of other ranks are fetched again in the backward';
  if (kept.rank === undefined) return `${what}, as the job says.`;
  return `${what}: rank ${kept.rank} has least room, ${bytes_text(kept.at_hand_bytes)} at hand; keeping would peak at ${bytes_text(kept.kept_bytes)}, fetching again at ${bytes_text(kept.fetched_bytes)} (estimates).`;
}

function curves_section({curves}) {
  const nothing = curves && (curves.loss.length || curves.tokens_per_second.length) ? undefined : 'No curves: they are of a training run, up to the end of its window.';
  const part = section('curves', 'Loss and throughput', 'Of the run up to the end of the window.', nothing);
  if (nothing) return;
  const pair = make('div.pair');
  part.append(pair);
  for (const [name, points, unit] of [['loss', curves.loss, ''], ['throughput', curves.tokens_per_second, 'tokens/s']]) {
    if (!points.length) continue;
    const box = make('div', make('h3', name, help(name === 'throughput' ? 'tokens per second' : 'loss')));
    pair.append(box);
    chart(box, `Curve of ${name}`, 240, () => ({
      grid: {left: 8, right: 16, top: 28, bottom: 36, containLabel: true},
      xAxis: value_axis('step', {min: 'dataMin', max: 'dataMax', minInterval: 1, nameLocation: 'middle', nameGap: 26, nameTextStyle: {align: 'center'}, axisLabel: {hideOverlap: true, showMaxLabel: false}, splitLine: {show: false}}),
      yAxis: value_axis(unit, {scale: true}),
      tooltip: tooltip((p) => tip(`step ${p[0].value[0]}`, [[undefined, name, `${digits(p[0].value[1], 5)} ${unit}`]]), {trigger: 'axis', axisPointer: {lineStyle: {color: colours.rule}}}),
      series: [{type: 'line', data: points, showSymbol: points.length < 2, lineStyle: {color: colours.accent, width: 1.8}, itemStyle: {color: colours.accent}, sampling: 'lttb'}],
    }));
  }
}

function overhead_section({overhead}) {
  const part = section('overhead', 'Overhead of recording', 'Recorded and unrecorded steps took turns in one window.', overhead ? undefined : 'Not measured: the window holds no steps without recording to compare with.',
                       overhead ? ['overhead'] : []);
  if (!overhead) return;
  part.append(figures([
    figure('overhead', 'overhead', split_percent(overhead.share), `${overhead.steps} steps of either kind`),
    figure('recorded step', 'overhead', time_parts(overhead.recorded_seconds * 1e3, 5), 'median'),
    figure('unrecorded step', 'overhead', time_parts(overhead.unrecorded_seconds * 1e3, 5), 'median'),
    figure('collecting, writing', 'recording', time_parts(overhead.recording_ms), `${grouped(String(Math.round(overhead.records)))} records, per rank and step`)]));
}

function job_section({job, machine, program}) {
  const part = section('job', 'Job', undefined, undefined);
  part.append(make('details', make('summary', 'The job as text, and where it ran'), make('pre', job.description),
    data_table('Hosts', [word_column('host', 'name'), number_column('ranks', 'ranks', machine.hosts, {decimals: 0, term: 'rank'})], machine.hosts),
    make('p.lead', `Identity ${job.identity}: equal for jobs that can be compared. ${program.name} ${program.version}.`)));
}

function definitions_section() {
  const part = section('definitions', 'Definitions', 'C, M, H and D are the unions of a rank\'s intervals of compute, operations in flight, copies and loading in a step of wall time T. Shares are over all ranks and steps of the window; columns of tables are per rank and step.', undefined);
  part.append(make('dl.definitions', Object.entries(DEFINITIONS).map(([term, text]) => make('div', make('dt', term), make('dd', text)))));
}
