// All that matters, at a glance.

import { getIfServed } from './api.js';
import { sparkline, timeline } from './charts.js';
import { facts, fill, h, keep, marked, panel, show, table, tell } from './dom.js';
import { Mixes, REASONS_MAX, SAMPLES_MAX } from './mix.js';
import { age, count, digest, figure, ms, percent, plural, spaced, time, version, wholeMs } from './words.js';

const mixes = new Mixes();
let observed = 0;
const latencies = [[], [], [], []];
const LATENCIES_MAX = 180;
const ALERTS_EVERY_MS = 5_000;

const STAGES = {
  publish: 'Publish',
  queue: 'Queue',
  policy: 'Policies',
  append: 'Append',
  delivery: 'Delivery',
  handler: 'Handler',
  end_to_end: 'End to end',
};

/** The steps that begin with an entry id, which is in whole ms. */
const IN_WHOLE_MS = ['delivery', 'end_to_end'];

/** The age of the oldest message of what is so deep. What came after the last sample has none yet. */
const oldestOf = (ageMs, depth, none) => (ageMs === null ? (depth > 0 ? 'just arrived' : none) : age(ageMs));

export function open(state) {
  const [figures, policies, lines] = [tiles(state), decisions(state), streams()];
  const ends = [rejections(), lastLetter()];
  const left = [flow(), protection()];
  const right = [latency(), firing(state)];
  const parts = [figures, policies, ...ends, lines, ...left, ...right];
  const roots = (panels) => panels.map(({ root }) => root);
  const columns = [left, right].map((panels) => h('div', { class: 'column' }, roots(panels)));
  const root = h('div', { class: 'page' }, h('h1', { class: 'hidden' }, 'Overview'), figures.root, policies.root,
    h('div', { class: 'grid' }, roots(ends)), lines.root, h('div', { class: 'grid' }, columns));
  return {
    root,
    close: () => parts.forEach((part) => part.close?.()),
    update: (now) => {
      observe(now);
      parts.forEach((part) => part.update(now));
    },
  };
}

function observe(now) {
  if (now.at_ms === observed) return;
  observed = now.at_ms;
  mixes.observe(now);
  const publish = now.stages.find(({ stage }) => stage === 'publish');
  const values = [now.at_ms / 1000, ...['p50_ms', 'p95_ms', 'p99_ms'].map((name) => (publish?.count ? publish[name] : null))];
  latencies.forEach((row, index) => {
    row.push(values[index]);
    if (row.length > LATENCIES_MAX) row.shift();
  });
}

const sum = (list, of) => list.reduce((total, item) => total + of(item), 0);

function tiles(state) {
  const tile = (name, title, link) => {
    const value = h('strong', { data: { figure: name } }, '–');
    const note = h('span', { class: 'faint' });
    const root = h(link ? 'a' : 'div', { class: 'tile', href: link }, h('span', { class: 'label' }, title), value, note);
    return { root, say: (text, words) => {
      tell(value, text);
      tell(note, words);
    } };
  };
  const published = tile('published-rate', 'Published, last minute');
  const settled = tile('settled-rate', 'Settled, last minute');
  const depth = tile('depth', 'Depth');
  const oldest = tile('oldest', 'Oldest message');
  const rejected = tile('rejected', 'Rejected');
  const dead = tile('dead-letters', 'Dead letters', state.may('dead-letters:read') ? '#/dead-letters' : null);
  const all = [published, settled, depth, oldest, rejected, dead];
  return {
    root: h('div', { class: 'tiles' }, all.map(({ root }) => root)),
    update(now) {
      const list = now.status.streams;
      const accepted = sum(now.publishes.filter(({ outcome }) => outcome === 'accepted'), (entry) => entry.count);
      published.say(`${figure(sum(list, ({ rates }) => rates.published_per_s))}/s`, `${count(accepted)} since start`);
      settled.say(`${figure(sum(list, ({ rates }) => rates.settled_per_s))}/s`, `${figure(sum(list, ({ rates }) => rates.delivered_per_s))}/s delivered`);
      const deep = sum(list, (stream) => stream.depth);
      depth.say(count(deep), `${plural(sum(list, (stream) => stream.delayed), 'waiting retry', 'waiting retries')}`);
      const old = list.filter((stream) => stream.oldest_age_ms !== null).sort((a, b) => b.oldest_age_ms - a.oldest_age_ms)[0];
      const waiting = old ?? list.find((stream) => stream.depth > 0);
      oldest.say(oldestOf(old?.oldest_age_ms ?? null, deep, 'none'), waiting ? waiting.name : 'nothing waits');
      const refused = now.publishes.filter(({ outcome }) => outcome === 'rejected').sort((a, b) => b.count - a.count);
      rejected.say(count(sum(refused, (entry) => entry.count)), refused[0] ? `most: ${refused[0].reason}` : 'since start');
      const { length, last, error } = now.dead_letters;
      dead.say(count(length), error ?? (last ? `${last.class}, ${age(last.age_ms)} ago` : length ? '' : 'none'));
    },
  };
}

function streams() {
  const { root: list, body } = table('Streams', [
    ['Stream'], ['5 minutes', 'chart'], ['Depth', 'number'], ['Oldest', 'number'],
    ['Published/s', 'number'], ['Settled/s', 'number'], ['Groups: lag / pending', 'groups'],
  ]);
  const { root } = panel('Streams', { wide: true, note: 'groups as last sampled; rates are means of the last minute', id: 'streams' }, list);
  const row = (stream) => {
    const cell = (name, kind = 'number') => h('td', { class: kind, data: { figure: `${name}:${stream.name}` } });
    const depth = cell('depth');
    const oldest = cell('oldest');
    const published = cell('published');
    const settled = cell('settled');
    const groups = cell('groups', 'groups');
    const drawing = h('div', { class: 'spark', role: 'img', 'aria-label': `Depth of ${stream.name}` });
    const spark = sparkline(drawing);
    return {
      root: h('tr', {}, h('th', { scope: 'row' }, stream.name), h('td', { class: 'chart' }, drawing), depth, oldest, published, settled, groups),
      close: spark.close,
      update([now, points]) {
        tell(depth, count(now.depth));
        tell(oldest, oldestOf(now.oldest_age_ms, now.depth, '–'));
        tell(published, figure(now.rates.published_per_s));
        tell(settled, figure(now.rates.settled_per_s));
        const words = now.groups.map((group) => `${group.name} ${count(group.lag)} / ${count(group.pending)}`);
        tell(groups, words.join(', ') || 'no group reads');
        groups.classList.toggle('faint', !words.length);
        spark.draw([points.map(({ at_ms: at }) => at / 1000), points.map((point) => point.depth)]);
      },
    };
  };
  return {
    root,
    close: () => body.kept?.forEach((child) => child.close()),
    update(now) {
      const items = now.status.streams.map((stream) => [stream, now.trends[stream.name] ?? []]);
      keep(body, items, ([stream]) => stream.name, ([stream]) => row(stream));
    },
  };
}

const key = (name, label) => h('span', { class: 'key' }, h('i', { class: `dot ${name}` }), label);

function flow() {
  const drawing = h('div', { class: 'drawing', role: 'img', 'aria-label': 'Messages published and settled per second' });
  const lines = () => [{ label: 'published', name: 'c1', fill: true }, { label: 'settled', name: 'c2' }];
  const chart = timeline(drawing, { height: 190, span: 300, lines, value: figure });
  const { root } = panel('Messages per second', { note: '5 minutes, means of 5 s' },
    h('div', { class: 'keys' }, key('c1', 'published'), key('c2', 'settled')), drawing);
  return {
    root,
    close: chart.close,
    update(now) {
      const at = new Map();
      for (const points of Object.values(now.trends)) {
        for (const point of points) {
          const row = at.get(point.at_ms) ?? [0, 0];
          at.set(point.at_ms, [row[0] + point.published_per_s, row[1] + point.settled_per_s]);
        }
      }
      const times = [...at.keys()].sort((a, b) => a - b);
      chart.draw([times.map((ms) => ms / 1000), times.map((ms) => at.get(ms)[0]), times.map((ms) => at.get(ms)[1])]);
    },
  };
}

function latency() {
  const drawing = h('div', { class: 'drawing', role: 'img', 'aria-label': 'Latency of publishes' });
  const lines = () => [
    { label: 'p99', name: 'c3', fill: true }, { label: 'p95', name: 'c4', fill: true }, { label: 'p50', name: 'c1', fill: true },
  ];
  const chart = timeline(drawing, { height: 120, span: LATENCIES_MAX, lines, value: (value) => `${figure(value)} ms` });
  const { root: list, body } = table('Latency of each step', [['Step'], ['Count', 'number'], ['p50', 'number'], ['p95', 'number'], ['p99', 'number']]);
  const { root } = panel('Latency', { note: 'last minute; the chart is of publishes', id: 'latency' },
    h('div', { class: 'keys' }, key('c1', 'p50'), key('c4', 'p95'), key('c3', 'p99')), drawing, list);
  const row = ({ stage }) => {
    const cells = ['count', 'p50', 'p95', 'p99'].map((name) => h('td', { class: 'number', data: { figure: `${name}:${stage}` } }));
    return {
      root: h('tr', {}, h('th', { scope: 'row' }, STAGES[stage] ?? stage), cells),
      update(now) {
        const words = IN_WHOLE_MS.includes(stage) ? wholeMs : ms;
        const known = (value) => (now.count ? words(value) : '–');
        const told = [count(now.count), known(now.p50_ms), known(now.p95_ms), known(now.p99_ms)];
        cells.forEach((cell, index) => tell(cell, told[index]));
      },
    };
  };
  return {
    root,
    close: chart.close,
    update(now) {
      keep(body, now.stages, ({ stage }) => stage, row);
      const [times, p50, p95, p99] = latencies;
      if (p50.some((value) => value !== null)) chart.draw([times, p99, p95, p50]);
      else chart.empty('No publishes since this page was opened.');
    },
  };
}

let shownKind = 'routing';

function decisions(state) {
  const drawing = h('div', { class: 'drawing', role: 'img', 'aria-label': 'Decisions per second by reason' });
  const keys = h('div', { class: 'keys' });
  let reasons = [];
  const chart = timeline(drawing, {
    height: 150,
    span: SAMPLES_MAX,
    lines: () => reasons.map(({ reason, tone }) => ({ label: reason, name: tone, fill: true })),
    marks: () => mixes.kinds.get(shownKind)?.swaps ?? [],
    value: figure,
  });
  const cards = h('div', { class: 'cards' });
  const note = state.may('policies:read') ? h('a', { href: '#/policies' }, 'Versions and history') : null;
  const { root } = panel('Policies in use', { wide: true, id: 'in-use', actions: note }, cards,
    h('div', { class: 'head sub' }, h('h3', {}, 'Decisions per second, by reason, stacked'), keys), drawing);
  const draw = () => {
    const kind = mixes.kinds.get(shownKind);
    reasons = kind.shown();
    const made = [shownKind, reasons];
    fill(keys, made, reasons.map(({ reason, tone }) => key(tone, reason)));
    if (reasons.length) chart.draw(mixes.stacked(shownKind, reasons.map(({ reason }) => reason)), JSON.stringify(made));
    else chart.empty(kind.isUsed ? `No decisions within ${SAMPLES_MAX} s.` : 'No decisions since this page was opened.');
    for (const card of cards.children) card.setAttribute('aria-pressed', card.dataset.kind === shownKind);
  };
  const card = ({ kind }) => {
    const name = h('strong', { data: { figure: `version:${kind}` } });
    const origin = h('code');
    const since = h('span', { class: 'faint' });
    const bar = h('div', { class: 'bar' });
    const list = h('ul', { class: 'reasons' });
    const trouble = h('p', { class: 'wrong' });
    const choose = () => {
      shownKind = kind;
      draw();
    };
    return {
      root: h('button', { class: 'card', data: { kind }, onclick: choose },
        h('span', { class: 'label' }, kind), h('span', { class: 'line' }, name, origin), since, bar, list, trouble),
      update([policy, mix]) {
        tell(name, version(policy.version));
        tell(origin, digest(policy.version));
        tell(since, `since ${time(policy.since_ms)} · ${plural(policy.decisions, 'decision')}${policy.failures ? ` · ${plural(policy.failures, 'failure')}` : ''}`);
        drawMix(bar, list, kind, mix);
        const why = policy.fallback ? `Fell back from ${version(policy.fallback.from)}: ${policy.fallback.fault}` : policy.not_started;
        const tried = policy.candidate ? `On trial: ${version(policy.candidate.version)}, ${count(policy.candidate.disagreements)} of ${count(policy.candidate.decisions)} differ` : '';
        tell(trouble, why ?? tried);
        trouble.classList.toggle('caution', !why);
        show(trouble, Boolean(why || tried));
      },
    };
  };
  return {
    root,
    close: chart.close,
    update(now) {
      const items = now.status.policies.map((policy) => [policy, now.decisions[policy.kind] ?? {}]);
      keep(cards, items, ([policy]) => policy.kind, ([policy]) => card(policy));
      draw();
    },
  };
}

/** A bar of shares, and the reasons with their counts. */
function drawMix(bar, list, kind, mix) {
  const entries = Object.entries(mix).sort((a, b) => b[1] - a[1]);
  const all = sum(entries, ([, number]) => number);
  const tone = (reason) => mixes.kinds.get(kind).tone(reason);
  const shown = entries.slice(0, REASONS_MAX).map(([reason, number]) => ({ reason, number, all, tone: tone(reason) }));
  keep(bar, shown, ({ reason }) => reason, () => {
    const root = h('i');
    return { root, update({ number, tone }) {
      root.className = tone;
      root.style.flexGrow = String(number);
    } };
  });
  keep(list, shown, ({ reason }) => reason, ({ reason }) => {
    const dot = h('i');
    const decided = h('span', { class: 'number', data: { figure: `decided:${kind}:${reason}` } });
    const share = h('span', { class: 'faint number' });
    return {
      root: h('li', {}, dot, h('span', {}, reason), decided, share),
      update(now) {
        dot.className = `dot ${now.tone}`;
        tell(decided, count(now.number));
        tell(share, percent(now.number, now.all));
      },
    };
  });
}

function rejections() {
  const { root: list, body } = table('Rejected publishes', [['Why'], ['By'], ['For'], ['Count', 'number'], ['Last example']]);
  const none = h('p', { class: 'empty' }, 'Nothing was rejected since the start.');
  const { root } = panel('Rejected, and why', { note: 'publishes, since the start', id: 'rejections' }, list, none);
  const row = ({ reason }) => {
    const [by, stream] = [h('td'), h('td', { class: 'stream' })];
    const number = h('td', { class: 'number', data: { figure: `rejected:${reason}` } });
    const example = h('td', { class: 'words' });
    return {
      root: h('tr', {}, h('th', { scope: 'row' }, reason), by, stream, number, example),
      update(now) {
        tell(by, decider(now));
        tell(stream, now.stream || '–');
        tell(number, count(now.count));
        fill(example, now.last, () => rejected(now.last));
      },
    };
  };
  return {
    root,
    update({ rejections: items }) {
      show(list, items.length > 0);
      show(none, items.length === 0);
      keep(body, items, (item) => JSON.stringify([item.stream, item.reason, decider(item)]), row);
    },
  };
}

/** Who has refused: a version of a policy, or the host itself. */
const decider = ({ by }) => (by ? version(by) : 'the host');

/** A publish that was refused: when, which, and what it was. */
function rejected({ at_ms: at, event_id: id, detail, followed }) {
  const event = id && (followed ? journey(id) : id);
  return h('div', {}, time(at), ...(event ? [' ', event] : []), h('p', { class: 'faint' }, detail));
}

/** An event id that leads to what the message has gone through. */
const journey = (id) => h('a', { href: `#/journey/${encodeURIComponent(id)}` }, id);

function lastLetter() {
  const body = h('div');
  const { root } = panel('Last dead letter', { id: 'last-letter' }, body);
  return {
    root,
    update({ at_ms: at, dead_letters: { length, last, lacks, error } }) {
      const made = [last && { ...last, age_ms: 0 }, lacks, length === 0, error];
      fill(body, made, () => {
        if (last) return h('div', {}, letterFacts(last, at));
        const none = lacks && length !== 0 ? `To see it, a token needs the right ${lacks}.` : 'There is none.';
        return h('p', { class: 'empty' }, error ?? none);
      });
    },
  };
}

const letterFacts = (last, at) => facts([
  ['Filed', h('span', { data: { figure: 'last-letter-at' } }, time(at - last.age_ms))],
  ['Event', last.event_id ? h('span', { data: { figure: 'last-letter-event' } }, journey(last.event_id)) : 'it cannot be read'],
  ['Type', last.type ?? last.message_type],
  ['Class', h('span', { class: 'tag bad', data: { figure: 'last-letter-class' } }, last.class)],
  ['Cause', h('span', { data: { figure: 'last-letter-cause' } }, `${last.failure}${last.detail ? `: ${last.detail}` : ''}`)],
  ['Reason', last.reason],
  ['From', `${last.stream}, group ${last.group}`],
  ['Entry', h('a', { href: `#/dead-letters/${last.id}` }, last.id)],
]);

function protection() {
  const { root: list, body } = table('Store, mode and breakers', [['What'], ['State'], ['Why']]);
  const { root } = panel('Store, mode and breakers', { id: 'breakers' }, list);
  const row = (entry) => {
    const mark = h('span', { data: { figure: `breaker:${entry.name}` } });
    const why = h('td');
    return {
      root: h('tr', {}, h('th', { scope: 'row' }, entry.name), h('td', {}, mark), why),
      update({ state: position, isCalm, reason, forced }) {
        mark.className = `tag ${isCalm ? 'good' : 'bad'}`;
        tell(mark, position);
        tell(why, forced ? `forced by ${forced.by}${forced.message ? `: ${forced.message}` : ''}` : reason);
      },
    };
  };
  return {
    root,
    update({ status }) {
      const mode = { ...status.mode_status, name: 'mode', state: status.mode, isCalm: status.mode === 'normal' };
      const breakers = status.breakers.map((breaker) => ({ ...breaker, isCalm: breaker.state === 'closed' }));
      keep(body, [ofStore(status.store), mode, ...breakers], ({ name }) => name, row);
    },
  };
}

const ofStore = ({ name, address, durable, up }) => ({
  name: 'store',
  state: up ? 'answers' : 'does not answer',
  isCalm: up,
  reason: `${name} at ${address}, ${durable ? 'durable' : 'not durable'}`,
});

function firing(state) {
  const body = h('div');
  const link = h('a', { href: '#/alerts' }, 'All alerts');
  const { root } = panel('Alerts', { id: 'firing', actions: state.may('bus:read') ? link : null }, body);
  let asked = 0;
  return {
    root,
    async update() {
      if (Date.now() - asked < ALERTS_EVERY_MS) return;
      asked = Date.now();
      const answer = await getIfServed('/v1/alerts').catch(() => undefined);
      if (answer === undefined) return;
      if (answer === null) asked = Infinity;
      const list = answer?.alerts.filter((alert) => alert.state !== 'ok') ?? [];
      fill(body, [answer === null, list.map((alert) => [alert.name, alert.subject, alert.state])], () => {
        if (answer === null) return h('p', { class: 'empty' }, 'Alerts are not available on this host.');
        if (!list.length) return h('p', { class: 'empty' }, 'Nothing fires.');
        return h('ul', { class: 'plain' }, list.map((alert) => h('li', {},
          h('span', { class: `tag ${alert.state === 'firing' ? 'bad' : 'caution'}` }, alert.state), ' ',
          h('strong', {}, spaced(alert.name)), alert.subject ? ` ${alert.subject}` : '', h('p', { class: 'faint' }, marked(alert.reason)))));
      });
    },
  };
}
