// The console: which page is shown, what is asked how often, and what is said when nobody answers.

import { Refused, get, hasToken, onUnknownToken, setToken, wantsToken } from './api.js';
import { askToken, help } from './dialog.js';
import { h, say, show, tell } from './dom.js';
import * as alerts from './alerts.js';
import * as journey from './journey.js';
import * as letters from './letters.js';
import * as overview from './overview.js';
import * as policies from './policies.js';
import { age, time } from './words.js';

/** How often the host is asked, in ms; and at most, while it does not answer. */
const EVERY_MS = 1_000;
const EVERY_MS_MAX = 10_000;

const PAGES = [
  { path: 'overview', title: 'Overview', right: 'bus:read', page: overview },
  { path: 'policies', title: 'Policies', right: 'policies:read', page: policies },
  { path: 'dead-letters', title: 'Dead letters', right: 'dead-letters:read', page: letters },
  { path: 'alerts', title: 'Alerts', right: 'bus:read', page: alerts },
  { path: 'journey', title: 'Journey', right: 'bus:read', page: journey },
];

const $ = (id) => document.getElementById(id);

const NOBODY = { name: '', rights: [], authenticated: false };

/** What all pages know. */
const state = {
  me: NOBODY,
  overview: null,
  may: (right) => state.me.rights.includes(right),
  go: (path) => {
    location.hash = `#/${path}`;
  },
};

let current;
let timer;
/** Why there are no new figures; nothing while there are. */
let lost = null;
/** When the host answered last, in ms. */
let answeredAt = null;
let wait = EVERY_MS;
let busy = false;

const allowed = () => PAGES.filter(({ right }) => state.may(right));

/** What a link says; as it stands if somebody has typed what no link is. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function route() {
  if (state.me === NOBODY) return;
  const [path, ...rest] = location.hash.replace(/^#\//, '').split('/');
  const found = allowed().find((entry) => entry.path === path) ?? allowed()[0];
  for (const link of $('pages').querySelectorAll('a')) {
    if (link.dataset.page === found?.path) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const argument = found?.path === path ? decoded(rest.join('/')) : '';
  if (current?.entry === found && found) {
    current.view.open?.(argument);
    return;
  }
  current?.view.close?.();
  current = null;
  if (!found) {
    $('main').replaceChildren(h('p', { class: 'empty' }, `The token of ${state.me.name} gives no right to see anything here.`));
    return;
  }
  document.title = `${found.title} · Oona`;
  const view = found.page.open(state);
  current = { entry: found, view };
  $('main').replaceChildren(view.root);
  view.open?.(argument);
  if (state.overview) view.update?.(state.overview);
}

function drawPages() {
  const links = PAGES.map((entry, index) => {
    const known = state.may(entry.right);
    const link = h('a', { href: `#/${entry.path}`, data: { page: entry.path } }, h('kbd', {}, String(index + 1)), entry.title);
    return h('li', { hidden: !known }, link);
  });
  $('pages').replaceChildren(...links);
  tell($('name'), state.me.authenticated ? state.me.name : '');
  show($('sign-out'), state.me.authenticated);
}

function drawState() {
  const now = state.overview;
  if (!now) return;
  const { ready, mode, store } = now.status;
  const isCalm = ready && mode === 'normal';
  $('state').className = `pill ${isCalm ? 'good' : ready ? 'caution' : 'bad'}`;
  tell($('state'), ready ? (mode === 'normal' ? 'Ready' : 'Conservative') : 'Not ready');
  const { reasons } = now.status;
  show($('trouble'), reasons.length > 0);
  $('trouble').classList.toggle('caution', ready);
  tell($('trouble'), [...(ready ? [] : ['Not ready']), ...reasons].join('\n'));
  tell($('host'), `${location.host} · v${now.version} · ${store.name}`);
}

/** Says why there are no new figures, and of when those are that are shown. */
function drawLost() {
  show($('lost'), lost !== null);
  document.body.classList.toggle('lost', lost !== null);
  if (lost === null) return;
  show($('trouble'), false);
  const figures = answeredAt ? `Figures of ${time(answeredAt)}, ${age(Date.now() - answeredAt)} ago.` : 'No figures yet.';
  tell($('lost'), `${lost}. ${figures} Trying again…`);
}

/** What an answer that is none means to whoever looks. */
function why(error) {
  if (!(error instanceof Refused)) return 'Connection lost: the host does not answer';
  const said = error.message.replace(/\.$/, '');
  return error.status < 500 ? `The host refuses this: ${said}` : `The host has failed: ${said}`;
}

/** Whoever looked is not known any more, or may do something else now: nothing of his stays. */
function forget() {
  state.me = NOBODY;
  state.overview = null;
}

/** Leaves the page: the next one is made for whoever signs in. */
function leave() {
  current?.view.close?.();
  current = null;
  $('main').replaceChildren();
  tell($('state'), '');
  show($('trouble'), false);
}

async function signIn() {
  for (;;) {
    try {
      state.me = await get('/v1/me');
      return;
    } catch (error) {
      if (!wantsToken(error)) throw error;
      lost = null;
      drawLost();
      leave();
      const wrong = hasToken() ? 'The host does not know this token.' : '';
      setToken(null);
      const token = await askToken(wrong);
      if (token) setToken(token);
    }
  }
}

/** Asks the host once. */
async function look() {
  if (state.me === NOBODY) {
    await signIn();
    leave();
    drawPages();
    route();
  }
  const answer = state.may('bus:read') ? await get('/v1/overview') : null;
  if (!answer) await get('/v1/me');
  answeredAt = Date.now();
  if (answer) state.overview = answer;
  drawState();
  current?.view.update?.(answer);
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden || busy) return;
  busy = true;
  try {
    await look();
    if (lost !== null) say('Connected again');
    lost = null;
    wait = EVERY_MS;
  } catch (error) {
    if (error instanceof Refused && [401, 403].includes(error.status)) forget();
    lost = wantsToken(error) ? null : why(error);
    wait = lost === null ? EVERY_MS : Math.min(wait * 2, EVERY_MS_MAX);
  }
  drawLost();
  busy = false;
  timer = setTimeout(poll, wait);
}

function press(event) {
  const { target, key } = event;
  const isTyping = target.matches('input, select, textarea') || document.querySelector('dialog[open]');
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const entry = PAGES[Number(key) - 1];
  if (entry && state.may(entry.right)) {
    state.go(entry.path);
    $('main').focus();
  } else if (key === '/') search();
  else if (key === '?') help();
  else if (key === 'r') current?.view.redrive?.();
  else return;
  event.preventDefault();
}

function search() {
  if (!current?.view.search && state.may('bus:read')) {
    state.go('journey');
    route();
  }
  current?.view.search?.focus();
}

onUnknownToken(forget);
addEventListener('hashchange', route);
addEventListener('keydown', press);
document.addEventListener('visibilitychange', poll);
$('help').addEventListener('click', help);
$('sign-out').addEventListener('click', () => {
  setToken(null);
  location.reload();
});
drawPages();
setInterval(drawLost, EVERY_MS);
poll();
