// Colours: Paul Tol's bright and muted schemes, which colour-blind readers tell apart, a little lighter on dark.
const PARTS = [
  ['compute', 'compute_ms', 'compute'], ['exposed communication', 'exposed_ms', 'exposed_communication'],
  ['copies', 'copies_ms', 'copies'], ['data wait', 'data_wait_ms', 'data_wait'], ['other', 'other_ms', 'other'],
];
const LIGHT = {
  compute: '#4477aa', 'exposed communication': '#ee6677', copies: '#ccbb44', 'data wait': '#aa3377', other: '#bbbbb6',
  attention: '#4477aa', selection: '#66ccee', 'linear layers': '#228833', 'norms, residuals': '#7cc4a4', 'optimizer, loss': '#5a4fa8',
  communication: '#ee6677', waiting: '#f6bcc3', 'data, checkpoints': '#aa3377',
  forward: '#4477aa', backward: '#228833', recompute: '#ccbb44', optimizer: '#5a4fa8', sample: '#66ccee',
  parameters: '#4477aa', gradients: '#66ccee', moments: '#228833', rest: '#bbbbb6', transfer: '#ee6677', wait: '#f6bcc3',
  memory: ['#eef0ef', '#c9dbe8', '#8fb9d6', '#4f8fbf', '#24619a', '#0d2f57'],
  ink: '#22262b', soft: '#5d636b', faint: '#7c8189', line: '#e2dfd8', rule: '#cbc7be', sheet: '#fdfcfa', paper: '#f6f5f1', accent: '#2f6690',
};
const DARK = {
  ...LIGHT,
  compute: '#5f94c9', 'exposed communication': '#ee6677', copies: '#ccbb44', 'data wait': '#c45f9b', other: '#6d7279',
  attention: '#5f94c9', 'linear layers': '#3c9d4e', 'norms, residuals': '#86cbae', 'optimizer, loss': '#8d83d8', waiting: '#8a4a53',
  'data, checkpoints': '#c45f9b', forward: '#5f94c9', backward: '#3c9d4e', optimizer: '#8d83d8',
  parameters: '#5f94c9', moments: '#3c9d4e', rest: '#6d7279', wait: '#8a4a53',
  memory: ['#22272c', '#1d3d5c', '#2a628f', '#4a8dc0', '#8bbfe4', '#e3f1fb'],
  ink: '#e4e2dc', soft: '#a5a9af', faint: '#7d8289', line: '#2b2f35', rule: '#41464d', sheet: '#1b1e22', paper: '#15171a', accent: '#8dbbe0',
};

const OPERATIONS = ['all_reduce', 'all_gather', 'reduce_scatter', 'all_to_all', 'broadcast', 'exchange', 'barrier', 'split'];
const FAMILIES = [
  ['selection', /^attention\.(pool|coarse|select|plan|prune|order|combine|sample)/],
  ['attention', /attention/],
  ['linear layers', /linear|mlp|feed_forward|ffn|projection|matmul|gemm|patch|^head/],
  ['norms, residuals', /norm|residual|embedding|modulat|gelu|rope|activation/],
  ['optimizer, loss', /optimizer|loss|clip|adam/],
  ['data, checkpoints', /data|checkpoint/],
];

// What a span of the timeline is about. Operations under a rank's own activities are what it waits for.
function family_of(name, lane) {
  if (lane === 1) return 'communication';
  if (OPERATIONS.includes(name) || /wait/.test(name)) return 'waiting';
  if (/pack|cast|convert|copy/.test(name)) return 'copies';
  return FAMILIES.find(([, pattern]) => pattern.test(name))?.[0] ?? 'other';
}
const FAMILY_ORDER = ['attention', 'selection', 'linear layers', 'norms, residuals', 'optimizer, loss', 'copies', 'communication', 'waiting',
  'data, checkpoints', 'other'];

let colours = LIGHT;
const theme_listeners = [];

function apply_theme(dark) {
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  colours = dark ? DARK : LIGHT;
  for (const listener of theme_listeners) listener();
}

function start_theme() {
  const system = matchMedia('(prefers-color-scheme: dark)');
  let chosen = 'auto';
  const buttons = [...document.querySelectorAll('[data-theme-choice]')];
  const update = () => {
    for (const button of buttons) button.setAttribute('aria-pressed', button.dataset.themeChoice === chosen);
    apply_theme(chosen === 'dark' || (chosen === 'auto' && system.matches));
  };
  for (const button of buttons) button.addEventListener('click', () => { chosen = button.dataset.themeChoice; update(); });
  system.addEventListener('change', update);
  addEventListener('beforeprint', () => apply_theme(false));
  addEventListener('afterprint', update);
  update();
}
