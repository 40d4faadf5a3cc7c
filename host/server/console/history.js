// Who changed what of the policies, and what was different then.

import { h, keep, marked, panel, show, table, tell } from './dom.js';
import { count, time, version } from './words.js';

/** How many reasons are told of what an activation has decided. */
const REASONS_MAX = 4;

/** Says which version a change is about. */
export function names(artifacts) {
  const known = new Map(artifacts.map((artifact) => [artifact.digest, version(artifact)]));
  return (change) => (change.digest ? known.get(change.digest) ?? change.digest.slice(0, 12) : 'as the hosts were started');
}

/** What is in use after a change, or tried: the change of the list that says so. */
function chosen(change, changes) {
  const isConclusion = change.action === 'promote' || change.action === 'withdraw';
  return isConclusion ? changes.find(({ revision }) => revision === change.stage) : change;
}

/** The values of a configuration, each by its place. */
function places(value, place = '') {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return [[place, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([name, inner]) => places(inner, place ? `${place}.${name}` : name));
}

/** What of a configuration is another than before; all of it, if nothing is known of what was before. */
function difference(config, before) {
  if (!config) return '';
  if (!before) return config === '{}' ? '' : `with ${config}`;
  const [now, then] = [config, before].map((json) => new Map(places(JSON.parse(json))));
  const all = [...new Set([...then.keys(), ...now.keys()])].filter(Boolean);
  const changed = all.filter((place) => now.get(place) !== then.get(place));
  return changed.map((place) => `${place}: ${then.get(place) ?? 'unset'} → ${now.get(place) ?? 'unset'}`).join(', ');
}

/** Each change, with which version it is about and what it changed of the configuration. */
function told(changes, artifacts) {
  const name = names(artifacts);
  const configs = {};
  return changes.map((change) => {
    const choice = chosen(change, changes);
    if (change.action === 'push') return { ...change, about: version(change), differs: '' };
    if (change.action === 'fell-back') return { ...change, about: `to ${change.to}`, differs: '' };
    const differs = difference(choice?.config, configs[change.kind]);
    if (change.action === 'activate' || change.action === 'promote') configs[change.kind] = choice?.config;
    return { ...change, about: choice ? name(choice) : `revision ${change.stage}`, differs };
  });
}

/** A kind, unless the name begins with it. */
const kindOf = ({ kind, about }) => (about.startsWith(`${kind} `) ? '' : `${kind} `);

export function history() {
  const { root: list, body } = table('History', [['Revision', 'number'], ['When'], ['What'], ['Policy'], ['By'], ['Why'], ['Decided']]);
  const none = h('p', { class: 'empty' }, 'Nobody has changed anything yet.');
  const { root } = panel('Who changed what', { wide: true, id: 'history' }, list, none);
  const row = (change) => {
    const decided = h('td', { class: 'faint' });
    return {
      root: h('tr', { data: { revision: change.revision } }, h('td', { class: 'number' }, count(change.revision)), h('td', {}, time(change.at_ms)),
        h('td', {}, change.reverts_to ? `back to ${change.reverts_to}` : change.action.replaceAll('-', ' ')),
        h('td', { class: 'words' }, h('span', { class: 'faint' }, kindOf(change)), change.about, change.differs && h('div', { class: 'faint' }, change.differs)),
        h('td', {}, change.by), h('td', { class: 'words' }, marked(change.message ?? '')), decided),
      update(now) {
        const most = Object.entries(now.decisions ?? {}).sort((a, b) => b[1] - a[1]).slice(0, REASONS_MAX);
        tell(decided, most.map(([reason, number]) => `${reason} ${count(number)}`).join(', '));
      },
    };
  };
  return {
    root,
    update({ history: changes, artifacts }) {
      keep(body, told(changes, artifacts).reverse(), ({ revision, at_ms: at }) => `${revision} ${at}`, row);
      show(list, changes.length > 0);
      show(none, changes.length === 0);
    },
  };
}
