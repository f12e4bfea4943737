// Numbers as people read them: three or four significant digits, a unit, thousands apart.
const THIN = '\u2009';

function grouped(text) {
  const [whole, part] = text.split('.');
  const apart = whole.replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
  return part === undefined ? apart : `${apart}.${part}`;
}

function digits(value, significant = 3) {
  if (!Number.isFinite(value)) return '–';
  if (value === 0) return '0';
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  if (magnitude < -6) return value.toExponential(significant - 1);
  return grouped(value.toFixed(Math.max(0, Math.min(8, significant - 1 - magnitude)))).replace('-', '−');
}

// On axes: no zeros that say nothing.
const tick = (value) => {
  const text = digits(value, 4);
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
};

const scaled = (value, steps, significant = 3) => {
  const [factor, unit] = steps.find(([least]) => Math.abs(value) >= least) ?? steps[steps.length - 1];
  return [digits(value / factor, significant), unit];
};
const BYTES = [[1e12, 'TB'], [1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB'], [1, 'B']];
const MILLISECONDS = [[1e3, 's'], [1, 'ms'], [1e-3, 'µs']];
const COUNTS = [[1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, '']];

const bytes_parts = (value) => scaled(value, BYTES);
const time_parts = (ms, significant) => (ms === 0 ? ['0', 'ms'] : scaled(ms, MILLISECONDS, significant));
const count_parts = (value) => scaled(value, COUNTS);
const bytes_text = (value) => bytes_parts(value).join(' ');
const time_text = (ms) => time_parts(ms).join(' ');
const percent = (share, significant = 3) => {
  const value = share * 100;
  const size = Math.abs(value);
  return grouped(value.toFixed(size >= 10 || value === 0 ? 1 : size >= 0.1 ? 2 : significant)).replace('-', '−') + ' %';
};
// Milliseconds in a column: the same number of decimals all the way down.
const column_decimals = (values) => {
  const largest = Math.max(0, ...values.filter(Number.isFinite).map(Math.abs));
  return largest >= 1000 ? 0 : largest >= 100 ? 1 : largest >= 10 ? 2 : 3;
};
// What would be rounded to nothing keeps a digit.
const fixed = (value, decimals) => (value !== 0 && Math.abs(value) < 0.5 / 10 ** decimals ? digits(value, 1) : grouped(value.toFixed(decimals)).replace('-', '−'));
