// The console: which page is shown, what is asked how often, and what is said when nobody answers.

import { Refused, get, hasToken, setToken } from './api.js';
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

/** What all pages know. */
const state = {
  me: { name: '', rights: [], authenticated: false },
  overview: null,
  may: (right) => state.me.rights.includes(right),
  go: (path) => {
    location.hash = `#/${path}`;
  },
};

let current;
let timer;
let lostSince = null;
let lostWhy = '';
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
  $('state').title = now.status.reasons.join('\n');
  tell($('host'), `${location.host} · v${now.version} · ${store.name}`);
}

/** Says since when nobody answers, and why. */
function drawLost() {
  show($('lost'), lostSince !== null);
  document.body.classList.toggle('lost', lostSince !== null);
  if (lostSince === null) return;
  const since = `${time(lostSince)}, ${age(Date.now() - lostSince)} ago`;
  tell($('lost'), `Connection lost at ${since}: ${lostWhy}. The figures are from before. Trying again…`);
}

async function signIn(why = '') {
  for (;;) {
    try {
      state.me = await get('/v1/me');
      return;
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 401) throw error;
      const wrong = hasToken() ? 'The host does not know this token.' : why;
      setToken(null);
      const token = await askToken(wrong);
      if (token) setToken(token);
    }
  }
}

/** Asks the host once. */
async function look() {
  if (!state.me.rights.length && !state.me.name) {
    await signIn();
    drawPages();
    route();
  }
  const answer = state.may('bus:read') ? await get('/v1/overview') : null;
  if (!answer) await get('/v1/me');
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
    if (lostSince !== null) say('Connected again');
    lostSince = null;
    wait = EVERY_MS;
    drawLost();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      state.me = { name: '', rights: [], authenticated: false };
    } else {
      lostSince ??= Date.now();
      lostWhy = error instanceof Refused ? error.message : 'the host does not answer';
      wait = Math.min(wait * 2, EVERY_MS_MAX);
    }
    drawLost();
  }
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
