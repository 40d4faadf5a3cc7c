// Dead letters: to look at, to understand, to send back.

import { get, getIfServed, post, why } from './api.js';
import { confirm } from './dialog.js';
import { facts, fill, h, keep, marked, panel, say, show, table, tell } from './dom.js';
import { age, bytes, count, figure, percent, plural, time } from './words.js';

const PAGE = 50;
const FAILURES = ['handler-error', 'poison', 'timeout', 'stale', 'replay', 'bad-signature', 'undecodable'];
const AGES = [['Any time', ''], ['Last 5 minutes', 300_000], ['Last hour', 3_600_000], ['Last day', 86_400_000]];

export function open(state) {
  const mayAct = state.may('dead-letters:write');
  const chosen = new Set();
  let starts = [''];
  let next = null;
  let seen = null;
  let shown = null;
  let rows = [];

  const search = h('input', { name: 'event_id', type: 'search', placeholder: 'Event id', 'aria-label': 'Event id', autocomplete: 'off' });
  const text = (name, label) => h('input', { name, type: 'search', placeholder: label, 'aria-label': label, autocomplete: 'off' });
  const select = (name, label, options) => h('select', { name, 'aria-label': label }, options.map(([title, value]) => h('option', { value }, title)));
  const filter = h('form', { class: 'filter', role: 'search', 'aria-label': 'Which dead letters' }, search, text('class', 'Class'), text('reason', 'Reason'),
    text('stream', 'Stream'), text('group', 'Group'), select('failure', 'Failure', [['Any failure', ''], ...FAILURES.map((name) => [name, name])]),
    select('newer_than_ms', 'Filed', AGES), h('button', { type: 'submit' }, 'Filter'), h('button', { type: 'reset', class: 'quiet' }, 'Clear'));
  const all = h('input', { type: 'checkbox', 'aria-label': 'Choose all of this page' });
  const { root: list, body } = table('Dead letters', [[mayAct ? all : '', 'check'], ['Filed'], ['Class'], ['Reason'], ['Type'], ['From'], ['Attempts', 'number']]);
  const none = h('p', { class: 'empty' });
  const status = h('span', { class: 'faint', role: 'status' });
  const previous = h('button', { class: 'quiet' }, 'Back');
  const more = h('button', { class: 'quiet' }, 'More');
  const bulk = h('button', { class: 'danger', hidden: true });
  const left = panel('Dead letters', { note: 'oldest first', id: 'letters', actions: h('div', { class: 'buttons' }, mayAct && bulk, previous, more) }, filter, list, none, status);
  const detail = h('section', { class: 'panel', id: 'letter', 'aria-label': 'The dead letter', hidden: true });
  const audit = auditor();
  const root = h('div', { class: 'page' }, h('h1', { class: 'hidden' }, 'Dead letters'), h('div', { class: 'split' }, left.root, detail), audit.root);

  const drawBulk = () => {
    show(bulk, chosen.size > 0);
    tell(bulk, `Redrive ${count(chosen.size)}…`);
    all.checked = rows.length > 0 && rows.every(({ id }) => chosen.has(id));
  };

  const row = (letter) => {
    const check = h('input', { type: 'checkbox', 'aria-label': `Choose ${letter.id}`, onchange: () => {
      if (check.checked) chosen.add(letter.id);
      else chosen.delete(letter.id);
      drawBulk();
    } });
    const link = h('a', { href: `#/dead-letters/${letter.id}` }, time(letter.at_ms));
    return {
      root: h('tr', { data: { letter: letter.id } }, h('td', { class: 'check' }, mayAct && check), h('td', {}, link),
        h('td', {}, h('span', { class: 'tag bad' }, letter.class)), h('td', { title: letter.detail }, letter.reason), h('td', {}, letter.type ?? letter.message_type),
        h('td', {}, `${letter.stream} · ${letter.group}`), h('td', { class: 'number' }, count(letter.attempts))),
      update() {
        check.checked = chosen.has(letter.id);
        body.kept.get(letter.id).root.classList.toggle('current', letter.id === shown);
      },
    };
  };

  async function refresh() {
    const query = new URLSearchParams({ limit: PAGE });
    for (const [name, value] of new FormData(filter)) if (value) query.set(name, value.trim());
    const start = starts.at(-1);
    if (start) query.set('after', start);
    try {
      const found = await get(`/v1/dead-letters?${query}`);
      rows = found.letters;
      next = found.next;
      keep(body, rows, ({ id }) => id, row);
      show(list, rows.length > 0);
      show(none, rows.length === 0);
      tell(none, [...new FormData(filter)].some(([, value]) => value) ? 'None fits. Clear the filter to see all.' : 'There are no dead letters.');
      tell(status, found.foreign ? `${plural(found.foreign, 'entry', 'entries')} of the stream are no dead letters of this bus` : '');
    } catch (error) {
      show(none, false);
      tell(status, `Could not be read: ${why(error)}${rows.length ? '. What is shown is from before' : ''}`);
    }
    previous.disabled = starts.length < 2;
    more.disabled = !next;
    drawBulk();
  }

  async function look(id) {
    shown = id || null;
    rows.forEach((letter) => body.kept?.get(letter.id)?.update());
    show(detail, Boolean(id));
    if (!id) return;
    try {
      const answer = await get(`/v1/dead-letters/${encodeURIComponent(id)}`);
      if (shown === id) fill(detail, answer, () => letterDetails(answer, mayAct && (() => redrive([id]))));
    } catch (error) {
      if (shown !== id) return;
      shown = null;
      fill(detail, [id, why(error)], () => h('div', { class: 'head' }, h('p', { class: 'wrong' }, marked(why(error))), h('div', { class: 'buttons' }, closing())));
    }
  }

  async function redrive(ids) {
    const streams = state.overview?.status.streams.map(({ name }) => name) ?? [];
    const to = h('select', { name: 'to' }, h('option', { value: '' }, 'where each came from'), streams.map((name) => h('option', { value: name }, name)));
    const words = [`${plural(ids.length, 'message')} will be delivered again, to every subscriber group of the stream that could not handle it.`];
    const answer = await confirm(`Redrive ${plural(ids.length, 'dead letter')}?`, words, 'Redrive', { fields: [['To', to]], danger: false });
    if (!answer) return;
    try {
      const { moved, error } = await post('/v1/dead-letters/redrive', { ids, to: answer.to, message: answer.message });
      const done = moved.filter(({ outcome }) => outcome === 'redriven');
      const not = moved.filter(({ outcome }) => outcome !== 'redriven');
      const words_ = [`${plural(done.length, 'dead letter')} redriven${done[0] ? ` to ${done[0].stream}` : ''}`, ...not.map((entry) => `${entry.id}: ${entry.outcome} ${entry.detail}`), ...(error ? [`it ended early: ${error}`] : [])];
      say(words_.join('; '), not.length > 0 || Boolean(error));
      done.forEach(({ id }) => chosen.delete(id));
      if (done.some(({ id }) => id === shown)) state.go('dead-letters');
    } catch (error) {
      say(error.message, true);
    }
    await refresh();
  }

  filter.addEventListener('submit', (event) => {
    event.preventDefault();
    starts = [''];
    refresh();
  });
  filter.addEventListener('reset', () => setTimeout(() => {
    starts = [''];
    refresh();
  }));
  previous.addEventListener('click', () => {
    starts.pop();
    refresh();
  });
  more.addEventListener('click', () => {
    starts.push(next);
    refresh();
  });
  bulk.addEventListener('click', () => redrive([...chosen]));
  all.addEventListener('change', () => {
    rows.forEach(({ id }) => (all.checked ? chosen.add(id) : chosen.delete(id)));
    rows.forEach(({ id }) => body.kept.get(id).update());
    drawBulk();
  });

  return {
    root,
    search,
    redrive: () => mayAct && (chosen.size || shown) && redrive(chosen.size ? [...chosen] : [shown]),
    async open(id) {
      await Promise.all([refresh(), look(id)]);
    },
    update(now) {
      const { length, last } = now?.dead_letters ?? {};
      const told = JSON.stringify([length, last?.id]);
      if (seen !== null && told !== seen) refresh();
      seen = told;
      audit.update();
    },
  };
}

const closing = () => h('a', { class: 'button quiet', href: '#/dead-letters', 'aria-label': 'Close the dead letter' }, 'Close');

function letterDetails({ letter, content, verified, message, explanation }, redrive) {
  const signature = { true: 'good', false: 'no key of this bus verifies it' }[verified] ?? 'not looked at: the bus has no key';
  const attributes = Object.entries(letter.attributes);
  return [
    h('div', { class: 'head' }, h('h2', {}, letter.event_id || letter.id), h('div', { class: 'buttons' },
      letter.event_id && h('a', { class: 'button quiet', href: `#/journey/${encodeURIComponent(letter.event_id)}` }, 'Journey'),
      redrive && h('button', { class: 'primary', onclick: redrive }, 'Redrive…'),
      closing())),
    facts([
      ['Class', h('span', { class: 'tag bad' }, letter.class)],
      ['Reason', `${letter.reason}, said ${letter.policy}`],
      ['Failure', `${letter.failure}${letter.detail ? `: ${letter.detail}` : ''}`],
      ['From', `${letter.stream}, group ${letter.group}, entry ${letter.entry}`],
      ['Attempts', `${plural(letter.attempts, 'attempt')} from ${time(letter.first_failed_ms)} to ${time(letter.at_ms)}; redriven ${plural(letter.redrives, 'time')} before`],
      ['Message', message && [`type ${message.type}`, `priority ${message.priority}`, message.source && `source ${message.source}`, message.key && `key ${message.key}`].filter(Boolean).join(', ')],
      ['Signature', signature],
      attributes.length > 0 && ['Attributes', attributes.map(([name, value]) => `${name} = ${value}`).join('\n')],
    ]),
    h('h3', {}, 'Content', ' · ', h('span', { class: 'faint' }, `${content.form}, ${bytes(content.size)}${content.cut ? ', cut' : ''}`)),
    h('pre', { class: 'content', tabindex: 0, 'aria-label': 'Content' }, content.text),
    h('h3', {}, 'What policies would decide now'),
    Array.isArray(explanation) ? explained(explanation) : h('p', { class: 'empty' }, explanation.error),
  ].reduce((whole, part) => (whole.append(part), whole), h('div'));
}

function explained(list) {
  const words = ({ reason, ...rest }) => {
    const told = Object.entries(rest).filter(([, value]) => value !== null && typeof value !== 'object').map(([name, value]) => `${name} ${typeof value === 'number' && !Number.isInteger(value) ? figure(value) : value}`);
    return h('td', {}, h('strong', {}, reason), told.length ? ` · ${told.join(', ')}` : '');
  };
  return h('div', { class: 'scroll' }, h('table', { class: 'small', 'aria-label': 'Explanation' }, h('tbody', {}, list.map(({ kind, policy, version, decision, fault }) =>
    h('tr', {}, h('th', { scope: 'row' }, kind), h('td', {}, `${policy} ${version}`), fault ? h('td', { class: 'wrong' }, fault) : words(decision))))));
}

/** What the auditor has counted. */
function auditor() {
  const body = h('div', { class: 'audit' });
  const { root, note } = panel('Audit', { id: 'audit' }, body);
  const EVERY_MS = 10_000;
  let asked = 0;
  const counts = (title, list) => h('div', {}, h('h3', {}, title), h('table', { class: 'small', 'aria-label': `By ${title}` }, h('tbody', {}, list.map(({ name, estimate }) => {
    const all = list.reduce((total, entry) => total + entry.estimate, 0);
    return h('tr', {}, h('th', { scope: 'row' }, name), h('td', { class: 'number' }, count(estimate)), h('td', { class: 'number faint' }, percent(estimate, all)));
  }))));
  return {
    root,
    async update() {
      if (Date.now() - asked < EVERY_MS) return;
      asked = Date.now();
      const now = await getIfServed('/v1/dead-letters/audit').catch(() => undefined);
      if (now === undefined) return;
      if (!now?.counts) {
        fill(body, null, () => h('p', { class: 'empty' }, 'There is no audit yet, or not on this host.'));
        return;
      }
      tell(note, [`${count(now.sampled)} of ${count(now.length)} looked at, ${time(now.at_ms)}`,
        now.oldest_ms !== null && `oldest ${age(now.at_ms - now.oldest_ms)}`, now.rising && 'rising'].filter(Boolean).join('; '));
      const told = Object.entries(now.counts).map(([name, list]) => [name, list.filter(({ estimate }) => estimate > 0)]);
      const none = `At ${time(now.at_ms)} there were no dead letters.`;
      if (now.length) fill(body, told, ...told.map(([name, list]) => () => counts(name, list)));
      else fill(body, none, () => h('p', { class: 'empty' }, none));
    },
  };
}
