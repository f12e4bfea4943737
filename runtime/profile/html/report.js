// Reads the profile that the page carries and draws it.
const SCHEMA = 2;

function read_profile() {
  const profile = JSON.parse(document.getElementById('profile').textContent);
  if (profile.schema !== SCHEMA) throw new Error(`this page reads profiles of schema ${SCHEMA}, and this one has ${profile.schema}`);
  return profile;
}

function report() {
  start_theme();
  let profile;
  try {
    profile = read_profile();
  } catch (problem) {
    main.append(make('div.notice', make('p', `The profile in this page cannot be read: ${problem.message}.`), {role: 'alert'}));
    return;
  }
  summary(profile);
  for (const part of [timeline_section, ranks_section, heads_section, bytes_section, roofline_section, prediction_section, slowest_section, layers_section,
                      operations_section, memory_section, curves_section, overhead_section, job_section, definitions_section]) {
    try {
      part(profile);
    } catch (problem) {  // the other sections still say what they know
      main.append(make('div.notice', make('p', `A section cannot be drawn: ${problem.message}.`), {role: 'alert'}));
      reportError(problem);
    }
  }
  main.append(make('p.colophon', `${profile.program.name} ${profile.program.version}, profile schema ${profile.schema}. Charts: Apache ECharts ${echarts.version}, Apache License 2.0.`));
  follow_scrolling();
}

report();
document.documentElement.dataset.ready = 'true';
