// Objectives, what is left of their budgets, and what fires.

import { getIfServed, why } from './api.js';
import { fill, h, keep, keptFacts, marked, panel, show, table, tell } from './dom.js';
import { age, coarse, count, figure, number, spaced, span, time } from './words.js';

const EVERY_MS = 2_000;

/** What would be told as 0.00 is 0. */
const rounded = (value) => (Math.abs(value) < 0.005 ? 0 : value);

/** A value and what it is measured in. */
function measure(value, unit) {
  if (unit === 'flag') return value > 0 ? 'yes' : 'no';
  const told = number(rounded(value));
  return `${told} ${{ percent: '%', 'times the limit': '× the limit' }[unit] ?? unit}`;
}

const TONES = { pending: 'caution', firing: 'bad' };

export function open() {
  const missing = h('p', { class: 'empty', hidden: true }, 'Alerts are not available on this host.');
  const unknown = h('p', { class: 'empty' }, 'Not known yet.');
  const failure = h('p', { class: 'wrong', role: 'alert' });
  const parts = [alerts(), objectives(), recent(), calm()];
  const grid = h('div', { class: 'grid', hidden: true }, parts.map(({ root }) => root));
  const root = h('div', { class: 'page' }, h('h1', { class: 'hidden' }, 'Alerts'), failure, unknown, missing, grid);
  let asked = 0;

  async function ask() {
    try {
      const now = await getIfServed('/v1/alerts');
      tell(failure, '');
      return now;
    } catch (error) {
      tell(failure, `Alerts could not be read: ${why(error)}.${grid.hidden ? '' : ' What is shown is from before.'}`);
      return undefined;
    }
  }

  async function refresh() {
    asked = Date.now();
    const now = await ask();
    if (now === undefined) return;
    show(unknown, false);
    show(missing, now === null);
    show(grid, now !== null);
    if (now === null) asked = Infinity;
    else parts.forEach((part) => part.update(now));
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
    const [reason, advice] = [h('div'), h('div', { class: 'faint' })];
    return {
      root: h('tr', {}, h('td', {}, mark), h('td', {}, name, ' ', severity), value, threshold, since, h('td', { class: 'words' }, reason, advice)),
      update(now) {
        mark.className = `tag ${TONES[now.state]}`;
        tell(mark, now.state);
        tell(name, spaced(now.name));
        tell(severity, [now.subject, now.severity].filter(Boolean).join(' · '));
        tell(value, measure(now.value, now.unit));
        tell(threshold, now.unit === 'flag' ? '–' : measure(now.threshold, now.unit));
        tell(since, time(now.since_ms));
        fill(reason, now.reason, ...marked(now.reason));
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

/** What of a budget is left, in words; whether more than all of it was spent. */
function budget({ total, budget_left: left }) {
  if (!total) return ['no events yet', false];
  if (left >= 0) return [`${(left * 100).toFixed(1)} % of the budget is left`, false];
  return [`budget overspent ${figure(1 - left)}-fold`, true];
}

const UNITS_MS = { m: 60_000, h: 3_600_000, d: 86_400_000 };

/** How fast a budget burns over the shortest window and the longest, as far as the host has run. */
function burns({ burn, since_ms: since }) {
  const ran = Math.max(Date.now() - since, 0);
  const told = [burn[0], burn.at(-1)].map(({ window, rate }) => {
    const length = parseInt(window, 10) * UNITS_MS[window.at(-1)];
    return `${figure(rounded(rate))}× ${length > ran ? `since the start (${coarse(ran)})` : `over ${span(length)}`}`;
  });
  return [...new Set(told)].join(', ');
}

function objectives() {
  const body = h('div', { class: 'cards' });
  const { root } = panel('Objectives', { wide: true, id: 'objectives' }, body);
  const card = () => {
    const name = h('span', { class: 'label' });
    const says = h('strong');
    const meter = h('meter', { min: 0, max: 1, low: 0.25, high: 0.5, optimum: 1, 'aria-label': 'Budget left' });
    const left = h('span');
    const more = keptFacts();
    return {
      root: h('div', { class: 'card' }, name, says, h('span', { class: 'line' }, meter, left), more.root),
      update(now) {
        tell(name, spaced(now.name));
        tell(says, now.says);
        const [words, overspent] = budget(now);
        // Where low is good, a full bar is red.
        meter.optimum = overspent ? 0 : 1;
        meter.value = overspent ? 1 : Math.min(1, now.budget_left);
        meter.ariaLabel = overspent ? 'Budget overspent' : 'Budget left';
        show(meter, now.total > 0);
        tell(left, words);
        left.className = overspent ? 'wrong' : now.total ? '' : 'faint';
        more.update([
          ['Target', `${(now.target * 100).toFixed(2).replace(/\.?0+$/, '')} % over ${now.window}`],
          ['Good', `${count(now.good)} of ${count(now.total)}`],
          ['Burn rate', burns(now)],
        ]);
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
