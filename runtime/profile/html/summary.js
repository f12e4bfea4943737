// The head of the page: what was measured, the verdict, what is missing, how the step divides, key figures.
function about(profile) {
  const {job, machine, mesh, window: seen} = profile;
  const ranks = profile.ranks.length + seen.missing_ranks.length;
  const many = (count, what) => `${grouped(String(count))} ${what}${count === 1 ? '' : 's'}`;
  const parts = [
    make('span', make('b', job.title)), make('span', job.kind === 'train' ? 'training' : job.kind === 'sample' ? 'sampling' : job.kind),
    make('span', `${many(ranks, 'rank')} on ${many(machine.hosts.length, 'host')}, ${machine.device}, ${many(machine.threads, 'thread')} a rank`),
    make('span', `mesh: data ${mesh.data} × outer ${mesh.outer} × ulysses ${mesh.ulysses}${mesh.strategy ? `, ${mesh.strategy}` : ''}`),
    make('span', `${many(seen.steps, 'step')} from step ${seen.first_step}`),
  ];
  return make('p.about', parts);
}

function notices({window: seen}) {
  const lines = [];
  if (!seen.complete) lines.push(`The window is not complete: ${seen.steps} of ${seen.asked} steps have records of all present ranks.`);
  if (seen.missing_ranks.length) lines.push(`No records of ${seen.missing_ranks.length} ranks: ${seen.missing_ranks.join(', ')}.`);
  if (seen.lost_records) lines.push(`${grouped(String(seen.lost_records))} operations were lost before they were read: sums of operations are too small.`);
  lines.push(...seen.notes);
  return lines.length ? make('div.notice', lines.map((line) => make('p', line)), {role: 'note'}) : undefined;
}

function step_strip(shares) {
  const present = PARTS.map(([name, , key]) => [name, shares[key]]);
  const strip = make('div.strip', {role: 'img', 'aria-label': present.map(([name, share]) => `${name} ${percent(share)}`).join(', ')});
  const key = make('div.strip-key');
  for (const [name, share] of present) {
    const bar = make('i', {title: `${name} ${percent(share)}`});
    bar.style.flexGrow = share;
    bar.dataset.colour = name;
    strip.append(bar);
    const mark = make('span.swatch');
    mark.dataset.colour = name;
    key.append(make('span', mark, `${name} `, make('b', percent(share)), help(name)));
  }
  const paint = () => { for (const e of [...strip.children, ...key.querySelectorAll('.swatch')]) e.style.background = colours[e.dataset.colour]; };
  theme_listeners.push(paint);
  paint();
  return [strip, key];
}

function figure(label, term, [value, unit], note) {
  return make('div.figure', make('dt', label, help(term)), make('dd', value, make('small', unit)), make('p', note ?? '\u00a0'));
}

// In one row on a wide screen, in two on a laptop's.
function figures(list) {
  const made = make('dl.figures', list);
  made.style.setProperty('--all', Math.max(5, list.length));
  made.style.setProperty('--half', Math.max(4, Math.ceil(list.length / 2)));
  return made;
}

const split_percent = (share) => percent(share).split(' ');

function key_figures({step, shares, flops, memory, layers, overhead, ranks}) {
  const list = [
    figure('step', 'step', time_parts(step.seconds * 1e3), `median ${time_text(step.median_seconds * 1e3)}`),
    figure('throughput', 'tokens per second', [grouped(String(Math.round(step.tokens_per_second))), 'tokens/s'], 'all ranks'),
  ];
  if (ranks.length > 1) list.push(
    figure('exposed', 'exposed communication', split_percent(shares.exposed_communication),
           `${time_text(shares.exposed_communication * step.seconds * 1e3)} a step`),
    figure('overlap', 'overlap', split_percent(shares.overlap), 'of communication is hidden'),
    figure('waiting', 'wait', split_percent(shares.waiting), 'of the step'));
  if (flops) {
    list.push(flops.mfu === undefined
      ? figure('executed', 'executed operations', [count_parts(flops.executed)[0], `${count_parts(flops.executed)[1]}FLOP`], 'peak unknown: give --cluster')
      : figure('MFU', 'MFU', split_percent(flops.mfu), `HFU ${percent(flops.hfu)} of ${digits(flops.peak_per_second / 1e12)} TFLOP/s`));
  }
  if (layers.length && ranks.length > 1) {
    const worst = layers.reduce((a, b) => (b.imbalance > a.imbalance ? b : a));
    list.push(figure('largest imbalance', 'imbalance', split_percent(worst.imbalance), `layer ${worst.layer}, rank ${worst.slowest_rank}`));
  }
  if (memory) list.push(figure('peak memory', 'peak memory', bytes_parts(memory.peak_bytes), `rank ${memory.rank}`));
  if (overhead) list.push(figure('overhead', 'overhead', split_percent(overhead.share), `${time_text(overhead.recording_ms)} a step`));
  return figures(list);
}

function summary(profile) {
  document.title = `${profile.job.title}: communication against compute`;
  main.append(about(profile), make('ul.verdict', profile.verdict.map((line) => make('li', line))));
  const warned = notices(profile);
  if (warned) main.append(warned);
  main.append(...step_strip(profile.shares), key_figures(profile));
}
