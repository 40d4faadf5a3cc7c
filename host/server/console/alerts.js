// Objectives, what is left of their budgets, and what fires.

import { getIfServed } from './api.js';
import { facts, fill, h, keep, marked, panel, show, table, tell } from './dom.js';
import { age, count, figure, number, spaced, time } from './words.js';

const EVERY_MS = 2_000;

/** A value and what it is measured in. */
function measure(value, unit) {
  if (unit === 'flag') return value > 0 ? 'yes' : 'no';
  return unit === 'percent' ? `${number(value)} %` : `${number(value)} ${unit}`;
}

const TONES = { pending: 'caution', firing: 'bad' };

export function open() {
  const missing = h('p', { class: 'empty', hidden: true }, 'Alerts are not available on this host.');
  const parts = [alerts(), objectives(), recent(), calm()];
  const grid = h('div', { class: 'grid' }, parts.map(({ root }) => root));
  const root = h('div', { class: 'page' }, h('h1', { class: 'hidden' }, 'Alerts'), missing, grid);
  let asked = 0;
  async function refresh() {
    asked = Date.now();
    const now = await getIfServed('/v1/alerts').catch(() => undefined);
    if (now === undefined) return;
    show(missing, now === null);
    show(grid, now !== null);
    if (now === null) asked = Infinity;
    if (now) parts.forEach((part) => part.update(now));
  }
  return { root, open: refresh, update: () => Date.now() - asked >= EVERY_MS && refresh() };
}

function alerts() {
  const { root: list, body } = table('Alerts', [['State'], ['Alert'], ['Value', 'number'], ['Threshold', 'number'], ['Since'], ['Why, and what to do']]);
  const { root, note } = panel('Alerts', { wide: true, id: 'alerts' }, list);
  const row = () => {
    const mark = h('span');
    const [name, severity] = [h('strong'), h('span', { class: 'faint' })];
    const [value, threshold] = [h('td', { class: 'number' }), h('td', { class: 'number' })];
    const since = h('td');
    const [why, advice] = [h('div'), h('div', { class: 'faint' })];
    return {
      root: h('tr', {}, h('td', {}, mark), h('td', {}, name, ' ', severity), value, threshold, since, h('td', { class: 'words' }, why, advice)),
      update(now) {
        mark.className = `tag ${TONES[now.state]}`;
        tell(mark, now.state);
        tell(name, spaced(now.name));
        tell(severity, [now.subject, now.severity].filter(Boolean).join(' · '));
        tell(value, measure(now.value, now.unit));
        tell(threshold, now.unit === 'flag' ? '–' : measure(now.threshold, now.unit));
        tell(since, time(now.since_ms));
        fill(why, now.reason, ...marked(now.reason));
        fill(advice, now.advice, ...marked(now.advice));
      },
    };
  };
  return {
    root,
    update(now) {
      const firing = now.alerts.filter(({ state }) => state === 'firing');
      const pending = now.alerts.filter(({ state }) => state === 'pending');
      tell(note, firing.length ? `${count(firing.length)} firing` : 'nothing fires');
      show(list, firing.length + pending.length > 0);
      keep(body, [...firing, ...pending], ({ name, subject }) => `${name} ${subject}`, row);
    },
  };
}

/** Alerts of one name that are well, by the one that is nearest to its threshold. */
function calm() {
  const { root: list, body } = table('Alerts that are well', [['Alert'], ['Nearest'], ['Value', 'number'], ['Threshold', 'number']]);
  const { root, note } = panel('Watched', { id: 'calm' }, list);
  const row = ({ name }) => {
    const cells = [h('td', { class: 'faint' }), h('td', { class: 'number' }), h('td', { class: 'number' })];
    return {
      root: h('tr', {}, h('th', { scope: 'row' }, spaced(name)), cells),
      update({ subject, value, threshold, unit, all }) {
        const others = all > 1 ? `, of ${count(all)}` : '';
        const words = [subject ? `${spaced(subject)}${others}` : '–', measure(value, unit), unit === 'flag' ? '–' : measure(threshold, unit)];
        cells.forEach((cell, index) => tell(cell, words[index]));
      },
    };
  };
  return {
    root,
    update(now) {
      const well = now.alerts.filter(({ state }) => state === 'ok');
      const names = [...new Set(well.map(({ name }) => name))];
      tell(note, `${count(well.length)} of ${count(now.alerts.length)} are well`);
      keep(body, names.map((name) => {
        const alike = well.filter((alert) => alert.name === name);
        const nearest = alike.reduce((near, alert) => (alert.value / alert.threshold > near.value / near.threshold ? alert : near));
        return { ...nearest, all: alike.length };
      }), ({ name }) => name, row);
    },
  };
}

function objectives() {
  const body = h('div', { class: 'cards' });
  const { root } = panel('Objectives', { wide: true, id: 'objectives' }, body);
  const card = () => {
    const name = h('span', { class: 'label' });
    const says = h('strong');
    const meter = h('meter', { min: 0, max: 1, low: 0.25, high: 0.5, optimum: 1, 'aria-label': 'Budget left' });
    const left = h('span');
    const more = h('div');
    return {
      root: h('div', { class: 'card' }, name, says, h('span', { class: 'line' }, meter, left), more),
      update(now) {
        tell(name, spaced(now.name));
        tell(says, now.says);
        meter.value = Math.max(0, Math.min(1, now.budget_left));
        tell(left, `${(now.budget_left * 100).toFixed(1)} % of the budget is left`);
        fill(more, now, () => facts([
          ['Target', `${(now.target * 100).toFixed(2).replace(/\.?0+$/, '')} % over ${now.window}`],
          ['Good', `${count(now.good)} of ${count(now.total)}`],
          ['Burn rate', [now.burn[0], now.burn.at(-1)].map(({ window, rate }) => `${figure(rate)}× over ${window}`).join(', ')],
        ]));
      },
    };
  };
  return { root, update: (now) => keep(body, now.objectives, ({ name }) => name, card) };
}

function recent() {
  const { root: list, body } = table('Recent', [['When'], ['What'], ['Alert'], ['Why']]);
  const none = h('p', { class: 'empty' }, 'Nothing has fired since the start.');
  const { root } = panel('Recent', { id: 'recent' }, list, none);
  return {
    root,
    update({ recent: entries }) {
      show(list, entries.length > 0);
      show(none, entries.length === 0);
      const latest = [...entries].sort((a, b) => b.at_ms - a.at_ms);
      fill(body, latest, ...latest.map((entry) => () => h('tr', {}, h('td', { title: `${age(Date.now() - entry.at_ms)} ago` }, time(entry.at_ms)),
        h('td', {}, h('span', { class: `tag ${entry.what === 'fired' ? 'bad' : 'good'}` }, entry.what)),
        h('td', {}, [spaced(entry.name), entry.subject].filter(Boolean).join(' · ')), h('td', { class: 'words' }, marked(entry.reason)))));
    },
  };
}
