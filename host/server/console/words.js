// Figures and times, in words.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** `12,345`. */
export const count = (number) => (number === null || number === undefined ? '–' : whole.format(number));

/** A number that changes all the time: as many digits as are of use. */
export function figure(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return '–';
  const size = Math.abs(number);
  if (size >= 1e6) return `${(number / 1e6).toFixed(1)}M`;
  if (size >= 10 || number === 0) return whole.format(number);
  return size >= 1 ? number.toFixed(1) : number.toFixed(2);
}

/** A number that may be whole. */
export const number = (value) => (Number.isInteger(value) ? count(value) : figure(value));

/** A latency, in ms. */
export function ms(number) {
  if (number === null || number === undefined) return '–';
  if (number >= 10_000) return `${(number / 1000).toFixed(1)} s`;
  if (number >= 100) return `${whole.format(number)} ms`;
  if (number > 0 && number < 0.01) return '< 0.01 ms';
  return `${number >= 10 ? number.toFixed(1) : number.toFixed(2)} ms`;
}

/** A latency that is measured in whole ms. */
export function wholeMs(number) {
  if (number === null || number === undefined) return '–';
  if (number >= 100) return ms(number);
  return number < 0.5 ? '< 1 ms' : `${whole.format(number)} ms`;
}

/** How long something is there, from ms. */
export function age(number) {
  if (number === null || number === undefined) return '–';
  const seconds = number / 1000;
  if (seconds < 1) return `${Math.round(number)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A length that somebody has set: `10 s`, `5 min`. */
export const span = (number) => age(number).replace(/ 0 (s|min|h)$/, '').replace(/\.0 s$/, ' s');

/** A length that grows: no more of it than its first unit. */
export const coarse = (number) => age(number).split(' ').slice(0, 2).join(' ');

export const bytes = (number) => {
  if (number < 1024) return `${number} B`;
  if (number < 1024 * 1024) return `${(number / 1024).toFixed(1)} KiB`;
  return `${(number / 1024 / 1024).toFixed(1)} MiB`;
};

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const date = new Intl.DateTimeFormat('en-CA', { year: 'numeric', month: '2-digit', day: '2-digit' });

/** `14:03:07`, with the day before it unless that is today. */
export function time(atMs) {
  if (!atMs) return '–';
  const at = new Date(atMs);
  const day = date.format(at);
  return day === date.format(new Date()) ? clock.format(at) : `${day} ${clock.format(at)}`;
}

export const percent = (part, all) => {
  if (!all) return '–';
  const share = (part / all) * 100;
  return share > 0 && share < 1 ? '<1 %' : `${share.toFixed(share < 10 && share > 0 ? 1 : 0)} %`;
};

/** Enough of a digest to tell versions apart. */
export const digest = (version) => (version.digest ? version.digest.slice(0, 12) : 'built in');

export const version = ({ name, version: number }) => `${name} ${number}`;

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** `queue_depth` as people write it. */
export const spaced = (name) => name.replaceAll('_', ' ');
