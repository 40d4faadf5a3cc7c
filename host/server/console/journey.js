// What has become of one message, step by step.

import { get, why } from './api.js';
import { facts, fill, h, marked, panel } from './dom.js';
import { age, ms, spaced, time } from './words.js';

/** How often a message that is followed is looked at again, in ms. */
const EVERY_MS = 2_000;

const HOW = 'Give the event id of a message: what it went through, and how long each step took.';

export function open(state) {
  const search = h('input', { type: 'search', name: 'id', 'aria-label': 'Event id', placeholder: 'Event id of a message', autocomplete: 'off', required: true });
  const form = h('form', { class: 'filter', role: 'search' }, search, h('button', { type: 'submit', class: 'primary' }, 'Follow'));
  const said = h('p', { class: 'empty lines', role: 'status' });
  const found = h('div');
  const { root: box } = panel('Journey', { id: 'journey' }, form, said, found);
  const root = h('div', { class: 'page' }, h('h1', { class: 'hidden' }, 'Journey'), box);

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const id = search.value.trim();
    if (location.hash === `#/journey/${encodeURIComponent(id)}`) follow(id);
    else state.go(`journey/${encodeURIComponent(id)}`);
  });

  let followed = '';
  let asked = 0;

  const say = (text) => fill(said, text, ...marked(text));

  function forget() {
    followed = '';
    fill(found, null);
    say(HOW);
  }

  async function follow(id) {
    asked = Date.now();
    const isNew = id !== followed;
    followed = id;
    try {
      const journey = await get(`/debug/trace/${encodeURIComponent(id)}`);
      if (followed !== id) return;
      say('');
      fill(found, journey, ...timeline(journey));
    } catch (error) {
      if (followed !== id || !isNew) return;
      forget();
      say(why(error));
    }
  }

  return {
    root,
    search,
    open(id) {
      search.value = id;
      if (id) follow(id);
      else forget();
    },
    update: () => followed && Date.now() - asked >= EVERY_MS && follow(followed),
  };
}

/** How long after the first step one was, in whole ms: more is not known. */
const after = (number) => (number < 1 ? '< 1 ms' : `+${age(number)}`);

const WRONG = new Set(['reject', 'nack', 'fail', 'dead_letter', 'discard']);

function timeline(journey) {
  const { steps } = journey;
  const longest = Math.max(...steps.map((step) => step.took_ms ?? 0), 0.001);
  const first = steps[0]?.at_ms ?? 0;
  const head = facts([
    ['Now', h('span', {}, marked(journey.state))],
    ['Entry', [journey.stream, journey.entry].filter(Boolean).join(' ')],
    journey.trace_id && ['Trace', h('code', {}, journey.trace_id)],
    ['Told by', journey.from],
  ]);
  const rows = steps.map((step, index) => {
    const bar = h('i', { class: 'took' });
    bar.style.width = `${Math.max(((step.took_ms ?? 0) / longest) * 100, step.took_ms ? 1 : 0)}%`;
    const more = [step.detail, step.group && `group ${step.group}`, step.attempt && `attempt ${step.attempt}`].filter(Boolean).join(' · ');
    return h('li', { class: WRONG.has(step.step) ? 'step bad' : 'step' },
      h('span', { class: 'at number', title: time(step.at_ms) }, index ? after(step.at_ms - first) : time(first)),
      h('strong', {}, spaced(step.step)),
      h('span', { class: 'number' }, step.took_ms === null ? '' : ms(step.took_ms)),
      h('span', { class: step.took_ms === null ? '' : 'track' }, bar), h('span', { class: 'words faint' }, marked(more)));
  });
  return [head, h('ol', { class: 'steps' }, rows)];
}
