// Which versions decide, what is tried beside them, what can be gone back to.

import { get, post, why } from './api.js';
import { confirm } from './dialog.js';
import { fill, h, keep, keptFacts, panel, say, show, table, tell } from './dom.js';
import { history, names } from './history.js';
import { bytes, count, digest, ms, percent, plural, span, time, version } from './words.js';

const EVERY_MS = 2_000;

export function open(state) {
  const mayAct = state.may('policies:write');
  const cards = h('div', { class: 'grid' });
  const kept = artifacts(mayAct, async (artifact) => act(await activation(artifact)));
  const changes = history();
  const failure = h('p', { class: 'wrong', role: 'alert' });
  const root = h('div', { class: 'page' }, h('h1', { class: 'hidden' }, 'Policies'), failure, cards,
    h('div', { class: 'grid' }, kept.root, changes.root));
  let asked = 0;

  async function ask() {
    try {
      const now = await get('/v1/policies');
      tell(failure, '');
      return now;
    } catch (error) {
      tell(failure, `What is known of policies could not be read: ${why(error)}`);
      return null;
    }
  }

  async function refresh() {
    asked = Date.now();
    const now = await ask();
    if (!now) return;
    const ofKind = ({ kind }) => now.history.filter((change) => change.kind === kind);
    keep(cards, now.policies.map((policy) => ({ policy, changes: ofKind(policy), artifacts: now.artifacts })),
      ({ policy }) => policy.kind, () => card(mayAct, act));
    kept.update(now);
    changes.update(now);
  }

  async function act({ path, body, done }) {
    if (!body) return;
    try {
      if (body.config) body.config = JSON.parse(body.config);
      const answer = await post(path, body);
      say(`${done} (revision ${answer.revision})`);
    } catch (error) {
      const gates = error.gates?.filter((gate) => gate.status === 'failed').map((gate) => `${gate.gate}: ${gate.detail}`);
      say(gates?.length ? gates.join('; ') : error.message, true);
    }
    await refresh();
  }

  return {
    root,
    open: refresh,
    update: () => Date.now() - asked >= EVERY_MS && refresh(),
  };
}

async function activation(artifact) {
  const words = [
    `${version(artifact)} will decide, as the ${artifact.kind} policy of every host.`,
    'It passes the gates first; if it does not, nothing changes.',
  ];
  const config = h('textarea', { name: 'config', rows: 4, spellcheck: 'false' }, artifact.config);
  const options = { danger: false, fields: [['Configuration', config]] };
  const answer = await confirm(`Activate ${version(artifact)}?`, words, 'Activate', options);
  return {
    path: `/v1/policies/${artifact.kind}/activate`,
    body: answer && { digest: artifact.digest, message: answer.message, config: answer.config },
    done: `${version(artifact)} is in use`,
  };
}

/** What can be gone back to: what is before the activation in use. */
const activations = (changes) => changes.filter(({ action }) => action === 'activate' || action === 'promote').reverse();

async function rollback({ policy, changes, artifacts }) {
  const name = names(artifacts);
  const [, ...before] = activations(changes);
  const option = (change) => h('option', { value: change.revision }, `revision ${change.revision}: ${change.action === 'promote' ? 'promoted' : name(change)}, ${time(change.at_ms)}`);
  const choice = h('select', { name: 'revision' }, h('option', { value: '' }, 'What was in use before'), before.map(option));
  const words = [`${version(policy)} decides now, as the ${policy.kind} policy of every host.`];
  const answer = await confirm(`Roll back ${policy.kind}?`, words, 'Roll back', { fields: [['To', choice]] });
  return {
    path: `/v1/policies/${policy.kind}/rollback`,
    body: answer && { message: answer.message, ...(answer.revision && { revision: Number(answer.revision) }) },
    done: `${policy.kind} was rolled back`,
  };
}

async function conclusion(policy, promote) {
  const tried = version(policy.status.candidate.version);
  const words = promote
    ? [`${tried} will decide, as the ${policy.kind} policy of every host, in the place of ${version(policy)}.`]
    : [`The trial of ${tried} ends. ${version(policy)} goes on to decide.`];
  const title = promote ? `Promote ${tried}?` : `End the trial of ${tried}?`;
  const answer = await confirm(title, words, promote ? 'Promote' : 'End the trial', { danger: !promote });
  return {
    path: `/v1/policies/${policy.kind}/conclude`,
    body: answer && { promote, message: answer.message },
    done: promote ? `${tried} is in use` : `The trial of ${tried} has ended`,
  };
}

/** One kind. It is made once, and told what changes: what is open stays open, and what has the focus keeps it. */
function card(mayAct, act) {
  let shown;
  const title = h('h2');
  const back = h('button', { class: 'quiet', onclick: async () => act(await rollback(shown)) }, 'Roll back…');
  const [name, origin] = [h('strong'), h('code')];
  const known = keptFacts();
  const troubles = [0, 1, 2].map(() => h('p', { class: 'wrong' }));
  const mix = reasons();
  const tried = trial(mayAct, async (promote) => act(await conclusion(shown.policy, promote)));
  const config = h('pre');
  const root = h('section', { class: 'panel' }, h('div', { class: 'head' }, title, mayAct && back),
    h('p', { class: 'line big' }, name, origin), known.root, troubles, mix.root, tried.root,
    h('details', {}, h('summary', {}, 'Configuration'), config));
  return {
    root,
    update(item) {
      shown = item;
      const { policy, changes } = item;
      root.dataset.kind = policy.kind;
      name.dataset.figure = `policy:${policy.kind}`;
      tell(title, policy.kind);
      back.disabled = !activations(changes).length;
      back.title = back.disabled ? 'There is nothing to go back to' : '';
      tell(name, version(policy));
      tell(origin, digest(policy));
      origin.title = policy.digest;
      known.update(doing(policy.status));
      troublesOf(policy.status).forEach((trouble, index) => tell(troubles[index], trouble));
      mix.update(policy.status.decisions);
      tried.update(policy.status.candidate);
      tell(config, JSON.stringify(policy.config, null, 2));
    },
  };
}

function troublesOf({ slot: { fallback }, not_started: notStarted, registry: { refused } }) {
  return [
    fallback ? `Fell back from ${version(fallback.from)}: ${fallback.fault}` : '',
    notStarted ?? '',
    refused ? `This host does not follow the registry: ${refused}` : '',
  ];
}

function doing({ slot, registry: { active } }) {
  const { budget } = slot;
  return [
    ['In use since', time(slot.since_ms)],
    active && ['Changed by', `${active.by}${active.message ? `: ${active.message}` : ''}, revision ${active.revision}`],
    ['Decided', `${plural(slot.decisions, 'decision')}, ${plural(slot.failures, 'failure')}`],
    ['Tolerated', `${count(budget.failures_recent)} of ${plural(budget.failures_max, 'failure')} in ${span(budget.failures_window_ms)}`],
    ['Slowest call', slowest(slot)],
    budget.memory_bytes_max !== null && ['Memory', `${bytes(budget.memory_bytes_used)} of ${bytes(budget.memory_bytes_max)}`],
  ];
}

/** A call is one for a whole batch. It is timed by the clock; the limit is of the time that it really runs. */
function slowest({ budget, decisions, failures }) {
  const { call_us_recent_max: us, call_ms_max: max, failures_window_ms: window } = budget;
  const limit = max === null ? 'no limit: a native build' : `limit ${count(max)} ms of CPU time`;
  if (!decisions && !failures) return `not called yet; ${limit}`;
  // It is told for its window and for the next.
  const recent = `in the last ${span(2 * window)}`;
  return us ? `${ms(us / 1000)} by the clock (a batch, ${recent}); ${limit}` : `none ${recent}; ${limit}`;
}

function reasons() {
  const body = h('tbody');
  const list = h('table', { class: 'small', 'aria-label': 'What it decided, and why' }, body);
  const none = h('p', { class: 'empty' }, 'It has decided nothing yet.');
  const row = ({ reason }) => {
    const [number, share] = [h('td', { class: 'number' }), h('td', { class: 'number faint' })];
    return {
      root: h('tr', {}, h('th', { scope: 'row' }, reason), number, share),
      update(now) {
        tell(number, count(now.number));
        tell(share, percent(now.number, now.all));
      },
    };
  };
  return {
    root: h('div', {}, list, none),
    update(mix) {
      const entries = Object.entries(mix).sort((a, b) => b[1] - a[1]);
      const all = entries.reduce((total, [, number]) => total + number, 0);
      show(list, all > 0);
      show(none, all === 0);
      keep(body, entries.map(([reason, number]) => ({ reason, number, all })), ({ reason }) => reason, row);
    },
  };
}

function trial(mayAct, conclude) {
  const [name, share, differ] = [h('span'), h('span', { class: 'tag caution' }), h('p')];
  const { root: list, body } = table('Where they differ', [['In use says'], ['Candidate says'], ['Count', 'number'], ['For instance']]);
  const row = (pair) => {
    const number = h('td', { class: 'number' });
    return {
      root: h('tr', {}, h('td', {}, pair.in_use), h('td', {}, pair.candidate), number, h('td', { class: 'words' }, pair.examples[0]?.message.id ?? '')),
      update: (now) => tell(number, count(now.count)),
    };
  };
  const button = (promote, label) => h('button', { class: promote ? 'primary' : 'quiet', onclick: () => conclude(promote) }, label);
  const root = h('div', { class: 'trial', hidden: true }, h('h3', {}, 'On trial: ', name, ' ', share), differ, list,
    mayAct && h('div', { class: 'buttons' }, button(false, 'End the trial…'), button(true, 'Promote…')));
  return {
    root,
    update(candidate) {
      show(root, Boolean(candidate));
      if (!candidate) return;
      const { canary } = candidate.mode;
      tell(name, version(candidate.version));
      tell(share, canary ? `canary, ${canary.per_mille / 10} % of keys` : 'shadow');
      tell(differ, `${count(candidate.disagreements)} of ${plural(candidate.decisions, 'decision')} differ (${percent(candidate.disagreements, candidate.decisions)}), ${plural(candidate.faults, 'failure')}`);
      show(list, candidate.pairs.length > 0);
      keep(body, candidate.pairs, (pair) => `${pair.in_use} ${pair.candidate}`, row);
    },
  };
}

function artifacts(mayAct, activate) {
  const { root: list, body } = table('Artifacts', [['Policy'], ['Kind'], ['Digest'], ['Size', 'number'], ['Signed'], ['']]);
  const none = h('p', { class: 'empty' }, 'The registry keeps nothing yet: ', h('code', {}, 'oona policy push FILE'));
  const { root } = panel('Kept in the registry', { wide: true, id: 'artifacts' }, list, none);
  const row = (artifact) => {
    const button = h('button', { class: 'quiet', onclick: () => activate(artifact) }, 'Activate…');
    const action = h('td', { class: 'action' });
    return {
      root: h('tr', { data: { digest: artifact.digest } }, h('th', { scope: 'row' }, version(artifact)), h('td', {}, artifact.kind),
        h('td', {}, h('code', { title: artifact.digest }, digest(artifact))), h('td', { class: 'number' }, bytes(artifact.size)),
        h('td', {}, artifact.signed_by.length ? plural(artifact.signed_by.length, 'signature') : 'no'), action),
      update(now) {
        const { inUse } = now;
        artifact = now;
        fill(action, inUse, () => (inUse ? h('span', { class: 'tag good' }, 'in use') : mayAct ? button : h('span')));
      },
    };
  };
  return {
    root,
    update({ artifacts: list_, policies, history }) {
      // With what it was used last; its own defaults else.
      const configOf = (name) => history.findLast((change) => change.digest === name && change.config)?.config ?? '{}';
      const used = new Set(policies.map((policy) => policy.digest));
      keep(body, list_.map((artifact) => ({ ...artifact, inUse: used.has(artifact.digest), config: configOf(artifact.digest) })), ({ digest: name }) => name, row);
      list.hidden = !list_.length;
      none.hidden = list_.length > 0;
    },
  };
}
