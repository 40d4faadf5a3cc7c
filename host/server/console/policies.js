// Which versions decide, what is tried beside them, what can be gone back to.

import { get, post } from './api.js';
import { confirm } from './dialog.js';
import { facts, fill, h, keep, panel, say, table, tell } from './dom.js';
import { bytes, count, digest, percent, plural, time, version } from './words.js';

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

  async function refresh() {
    asked = Date.now();
    try {
      const now = await get('/v1/policies');
      tell(failure, '');
      const ofKind = ({ kind }) => now.history.filter((change) => change.kind === kind);
      keep(cards, now.policies.map((policy) => ({ policy, changes: ofKind(policy), artifacts: now.artifacts })),
        ({ policy }) => policy.kind, () => card(mayAct, act));
      kept.update(now);
      changes.update(now);
    } catch (error) {
      tell(failure, `What is known of policies could not be read: ${error.message}`);
    }
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

function names(artifacts) {
  const known = new Map(artifacts.map((artifact) => [artifact.digest, version(artifact)]));
  return (change) => (change.digest ? known.get(change.digest) ?? change.digest.slice(0, 12) : 'as the host was started');
}

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

function card(mayAct, act) {
  let shown;
  const title = h('h2');
  const body = h('div');
  const back = h('button', { class: 'quiet', onclick: async () => act(await rollback(shown)) }, 'Roll back…');
  const head = h('div', { class: 'head' }, title, mayAct && back);
  return {
    root: h('section', { class: 'panel' }, head, body),
    update(item) {
      shown = item;
      const { policy, changes } = item;
      tell(title, policy.kind);
      back.disabled = !activations(changes).length;
      back.title = back.disabled ? 'There is nothing to go back to' : '';
      body.parentElement.dataset.kind = policy.kind;
      fill(body, [policy, changes.length], () => details(policy, mayAct, act));
    },
  };
}

function details(policy, mayAct, act) {
  const { slot, candidate, not_started: notStarted, registry, decisions } = policy.status;
  const { budget } = slot;
  const limits = budget.call_ms_max === null ? 'none: a native build'
    : `slowest call ${(budget.call_us_recent_max / 1000).toFixed(2)} of ${budget.call_ms_max} ms, ${bytes(budget.memory_bytes_used)} of ${bytes(budget.memory_bytes_max)}`;
  const active = registry.active;
  return h('div', {},
    h('p', { class: 'line big' }, h('strong', { data: { figure: `policy:${policy.kind}` } }, version(policy)), h('code', { title: policy.digest }, digest(policy))),
    facts([
      ['In use since', time(slot.since_ms)],
      active && ['Changed by', `${active.by}${active.message ? `: ${active.message}` : ''}, revision ${active.revision}`],
      ['Calls', `${plural(slot.decisions, 'decision')}, ${plural(slot.failures, 'failure')}; ${budget.failures_recent} of ${budget.failures_max} forgiven are spent`],
      ['Limits', limits],
    ]),
    slot.fallback && h('p', { class: 'wrong' }, `Fell back from ${version(slot.fallback.from)}: ${slot.fallback.fault}`),
    notStarted && h('p', { class: 'wrong' }, notStarted),
    registry.refused && h('p', { class: 'wrong' }, `This host does not follow the registry: ${registry.refused}`),
    reasons(decisions),
    candidate && trial(policy, candidate, mayAct, act),
    h('details', {}, h('summary', {}, 'Configuration'), h('pre', {}, JSON.stringify(policy.config, null, 2))));
}

function reasons(mix) {
  const entries = Object.entries(mix).sort((a, b) => b[1] - a[1]);
  const all = entries.reduce((total, [, number]) => total + number, 0);
  if (!entries.length) return h('p', { class: 'empty' }, 'It has decided nothing yet.');
  return h('table', { class: 'small', 'aria-label': 'What it decided, and why' }, h('tbody', {}, entries.map(([reason, number]) =>
    h('tr', {}, h('th', { scope: 'row' }, reason), h('td', { class: 'number' }, count(number)), h('td', { class: 'number faint' }, percent(number, all))))));
}

function trial(policy, candidate, mayAct, act) {
  const share = candidate.mode.canary ? `canary, ${candidate.mode.canary.per_mille / 10} % of keys` : 'shadow';
  const pairs = candidate.pairs.map((pair) => h('tr', {}, h('td', {}, pair.in_use), h('td', {}, pair.candidate),
    h('td', { class: 'number' }, count(pair.count)), h('td', {}, pair.examples[0]?.message.id ?? '')));
  const button = (promote, label) => h('button', { class: promote ? 'primary' : 'quiet', onclick: async () => act(await conclusion(policy, promote)) }, label);
  return h('div', { class: 'trial' },
    h('h3', {}, `On trial: ${version(candidate.version)}`, ' ', h('span', { class: 'tag caution' }, share)),
    h('p', {}, `${count(candidate.disagreements)} of ${plural(candidate.decisions, 'decision')} differ (${percent(candidate.disagreements, candidate.decisions)}), ${plural(candidate.faults, 'failure')}`),
    pairs.length > 0 && h('div', { class: 'scroll' }, h('table', { class: 'small', 'aria-label': 'Where they differ' },
      h('thead', {}, h('tr', {}, ['In use says', 'Candidate says', 'Count', 'For instance'].map((head, index) => h('th', { scope: 'col', class: index === 2 ? 'number' : '' }, head)))),
      h('tbody', {}, pairs))),
    mayAct && h('div', { class: 'buttons' }, button(false, 'End the trial…'), button(true, 'Promote…')));
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

function history() {
  const { root: list, body } = table('History', [['Revision', 'number'], ['When'], ['What'], ['Policy'], ['By'], ['Why'], ['Decided']]);
  const none = h('p', { class: 'empty' }, 'Nobody has changed anything yet.');
  const { root } = panel('Who changed what', { wide: true, id: 'history' }, list, none);
  return {
    root,
    update({ history: changes, artifacts: kept }) {
      const name = names(kept);
      fill(body, changes, ...[...changes].reverse().map((change) => () => {
        const decided = Object.entries(change.decisions ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 4);
        return h('tr', {}, h('td', { class: 'number' }, count(change.revision)), h('td', {}, time(change.at_ms)),
          h('td', {}, change.reverts_to ? `back to ${change.reverts_to}` : change.action), h('td', {}, `${change.kind ?? ''} ${change.action === 'push' ? version(change) : change.digest ? name(change) : ''}`),
          h('td', {}, change.by), h('td', {}, change.message), h('td', { class: 'faint' }, decided.map(([reason, number]) => `${reason} ${count(number)}`).join(', ')));
      }));
      list.hidden = !changes.length;
      none.hidden = changes.length > 0;
    },
  };
}
