// All that matters, at a glance.

import { getIfServed } from './api.js';
import { PALETTE, sparkline, timeline } from './charts.js';
import { facts, fill, h, keep, marked, panel, show, table, tell } from './dom.js';
import { Mixes, REASONS_MAX } from './mix.js';
import { age, count, digest, figure, ms, percent, plural, spaced, time, version } from './words.js';

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

export function open(state) {
  const [figures, policies, lines] = [tiles(state), decisions(state), streams()];
  const ends = [rejections(), lastLetter(state)];
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
  const published = tile('published-rate', 'Published');
  const settled = tile('settled-rate', 'Settled');
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
      depth.say(count(sum(list, (stream) => stream.depth)), `${plural(sum(list, (stream) => stream.delayed), 'waiting retry', 'waiting retries')}`);
      const old = list.filter((stream) => stream.oldest_age_ms !== null).sort((a, b) => b.oldest_age_ms - a.oldest_age_ms)[0];
      oldest.say(old ? age(old.oldest_age_ms) : 'none', old ? old.name : 'nothing waits');
      const refused = now.publishes.filter(({ outcome }) => outcome === 'rejected').sort((a, b) => b.count - a.count);
      rejected.say(count(sum(refused, (entry) => entry.count)), refused[0] ? `most: ${refused[0].reason}` : 'since start');
      const { length, last, error } = now.dead_letters;
      dead.say(count(length), error ?? (last ? `${last.class}, ${age(last.age_ms)} ago` : 'none'));
    },
  };
}

function streams() {
  const { root: list, body } = table('Streams', [
    ['Stream'], ['5 minutes', 'chart'], ['Depth', 'number'], ['Oldest', 'number'],
    ['Published/s', 'number'], ['Settled/s', 'number'], ['Groups: lag / pending', 'groups'],
  ]);
  const { root } = panel('Streams', { wide: true, note: 'as last sampled', id: 'streams' }, list);
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
        tell(oldest, age(now.oldest_age_ms));
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
  const { root } = panel('Messages per second', { note: '5 minutes' },
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
        const known = (value) => (now.count ? ms(value) : '–');
        const words = [count(now.count), known(now.p50_ms), known(now.p95_ms), known(now.p99_ms)];
        cells.forEach((cell, index) => tell(cell, words[index]));
      },
    };
  };
  return {
    root,
    close: chart.close,
    update(now) {
      keep(body, now.stages, ({ stage }) => stage, row);
      const [times, p50, p95, p99] = latencies;
      chart.draw([times, p99, p95, p50]);
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
    span: 180,
    lines: () => reasons.map((reason, index) => ({ label: reason, name: PALETTE[index], fill: true })),
    marks: () => mixes.kinds.get(shownKind)?.swaps ?? [],
    value: figure,
  });
  const cards = h('div', { class: 'cards' });
  const note = state.may('policies:read') ? h('a', { href: '#/policies' }, 'Versions and history') : null;
  const { root } = panel('Policies in use', { wide: true, id: 'in-use', actions: note }, cards,
    h('div', { class: 'head sub' }, h('h3', {}, 'Decisions per second, by reason'), keys), drawing);
  const draw = () => {
    const top = (mixes.kinds.get(shownKind)?.reasons() ?? []).slice(0, REASONS_MAX);
    if (JSON.stringify(top) !== JSON.stringify(reasons)) {
      reasons = top;
      keys.replaceChildren(...reasons.map((reason, index) => key(PALETTE[index], reason)));
    }
    const data = mixes.stacked(shownKind, reasons);
    if (reasons.length) chart.draw(data);
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
      reasons = [];
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
  const shown = entries.slice(0, REASONS_MAX).map(([reason, number], index) => ({ reason, number, all, tone: PALETTE[index] }));
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
  const { root: list, body } = table('Rejected publishes', [['Why'], ['By'], ['For'], ['Count', 'number']]);
  const none = h('p', { class: 'empty' }, 'Nothing was rejected since the start.');
  const { root } = panel('Rejected, and why', { note: 'publishes, since the start', id: 'rejections' }, list, none);
  const row = (entry) => {
    const cells = [h('td'), h('td', { class: 'stream' }), h('td', { class: 'number', data: { figure: `rejected:${entry.reason}` } })];
    return {
      root: h('tr', {}, h('th', { scope: 'row' }, entry.reason), cells),
      update(now) {
        tell(cells[0], now.by);
        tell(cells[1], now.stream || '–');
        tell(cells[2], count(now.count));
      },
    };
  };
  return {
    root,
    update(now) {
      const refused = now.publishes.filter(({ outcome }) => outcome === 'rejected').sort((a, b) => b.count - a.count);
      const items = refused.map((entry) => ({ ...entry, by: decidedBy(now, entry.reason) }));
      show(list, items.length > 0);
      show(none, items.length === 0);
      keep(body, items, ({ stream, reason }) => `${stream} ${reason}`, row);
    },
  };
}

/** Who gave a reason: a policy in use, or the host itself. */
function decidedBy(now, reason) {
  const kind = ['routing', 'backpressure'].find((name) => (now.decisions[name] ?? {})[reason]);
  const policy = now.status.policies.find((entry) => entry.kind === kind);
  return policy ? version(policy.version) : 'the host';
}

function lastLetter(state) {
  const body = h('div');
  const { root } = panel('Last dead letter', { id: 'last-letter' }, body);
  return {
    root,
    update({ at_ms: at, dead_letters: { last, error } }) {
      const made = [last && { ...last, age_ms: 0 }, error];
      fill(body, made, () => {
        if (!last) return h('p', { class: 'empty' }, error ?? 'There is none.');
        const id = state.may('dead-letters:read') ? h('a', { href: `#/dead-letters/${last.id}` }, last.id) : last.id;
        return facts([
          ['Filed', h('span', { data: { figure: 'last-letter-at' } }, time(at - last.age_ms))],
          ['Class', h('span', { class: 'tag bad', data: { figure: 'last-letter-class' } }, last.class)],
          ['Reason', last.reason],
          ['Failure', last.failure],
          ['From', `${last.stream}, group ${last.group}`],
          ['Entry', id],
        ]);
      });
    },
  };
}

function protection() {
  const { root: list, body } = table('Breakers and mode', [['What'], ['State'], ['Why']]);
  const { root } = panel('Breakers and mode', { id: 'breakers' }, list);
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
      keep(body, [mode, ...breakers], ({ name }) => name, row);
    },
  };
}

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
