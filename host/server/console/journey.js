// What has become of one message, step by step.

import { Refused, get } from './api.js';
import { facts, h, panel, tell } from './dom.js';
import { ms, spaced, time } from './words.js';

export function open(state) {
  const search = h('input', { type: 'search', name: 'id', 'aria-label': 'Event id', placeholder: 'Event id of a message', autocomplete: 'off', required: true });
  const form = h('form', { class: 'filter', role: 'search' }, search, h('button', { type: 'submit', class: 'primary' }, 'Follow'));
  const said = h('p', { class: 'empty', role: 'status' }, 'Give the event id of a message: what it went through, and how long each step took.');
  const found = h('div');
  const { root: box } = panel('Journey', { id: 'journey' }, form, said, found);
  const root = h('div', { class: 'page' }, h('h1', { class: 'hidden' }, 'Journey'), box);

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const id = search.value.trim();
    if (location.hash === `#/journey/${encodeURIComponent(id)}`) follow(id);
    else state.go(`journey/${encodeURIComponent(id)}`);
  });

  async function follow(id) {
    search.value = id;
    if (!id) return;
    try {
      const journey = await get(`/debug/trace/${encodeURIComponent(id)}`);
      tell(said, '');
      found.replaceChildren(...timeline(journey));
    } catch (error) {
      const unknown = error instanceof Refused && error.status === 404;
      const unserved = unknown && error.message.includes('is not served');
      tell(said, unserved ? 'Journeys are not available on this host.' : error.message);
      found.replaceChildren();
    }
  }

  return { root, search, open: follow };
}

const WRONG = new Set(['nack', 'dead_letter', 'discard', 'rejected']);

function timeline(journey) {
  const { steps } = journey;
  const longest = Math.max(...steps.map((step) => step.took_ms ?? 0), 0.001);
  const first = steps[0]?.at_ms ?? 0;
  const head = facts([
    ['Now', journey.state],
    ['Entry', [journey.stream, journey.entry].filter(Boolean).join(' ')],
    journey.trace_id && ['Trace', h('code', {}, journey.trace_id)],
    ['Told by', journey.from],
  ]);
  const rows = steps.map((step) => {
    const bar = h('i', { class: 'took' });
    bar.style.width = `${Math.max(((step.took_ms ?? 0) / longest) * 100, step.took_ms ? 1 : 0)}%`;
    const more = [step.detail, step.group && `group ${step.group}`, step.attempt && `attempt ${step.attempt}`].filter(Boolean).join(' · ');
    return h('li', { class: WRONG.has(step.step) ? 'step bad' : 'step' },
      h('span', { class: 'at number', title: time(step.at_ms) }, `+${ms(step.at_ms - first)}`),
      h('strong', {}, spaced(step.step)),
      h('span', { class: 'number' }, step.took_ms === null ? '' : ms(step.took_ms)),
      h('span', { class: 'track' }, bar), h('span', { class: 'words faint' }, more));
  });
  return [head, h('ol', { class: 'steps' }, rows)];
}
