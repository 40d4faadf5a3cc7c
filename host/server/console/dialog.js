// Questions to whoever looks.

import { h } from './dom.js';

/** Shows a form in a dialog. Answers what is in it; nothing if it was left. */
function form(title, content, action, { danger } = {}) {
  const cancel = h('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel');
  const ok = h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, action);
  const body = h('form', { method: 'dialog' }, h('h2', {}, title), content, h('div', { class: 'buttons' }, cancel, ok));
  const dialog = h('dialog', { 'aria-label': title }, body);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let answer = null;
    body.addEventListener('submit', () => {
      answer = Object.fromEntries(new FormData(body));
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(answer);
    });
    dialog.showModal();
  });
}

const field = (label, input) => h('label', { class: 'field' }, h('span', {}, label), input);

/** Asks whether something shall be done, and why: the message, or nothing. */
export async function confirm(title, words, action, { fields = [], danger = true } = {}) {
  const message = h('input', { name: 'message', autocomplete: 'off', maxlength: 500, placeholder: 'Why? It goes to the audit log' });
  const more = fields.map(([label, input]) => field(label, input));
  const content = [...words.map((line) => h('p', {}, line)), ...more, field('Message', message)];
  return form(title, content, action, { danger });
}

/** Asks for a token. */
export async function askToken(why) {
  const input = h('input', { name: 'token', type: 'password', required: true, autocomplete: 'off', id: 'token' });
  const words = [
    h('p', {}, 'This host wants a token. It is kept until this tab is closed.'),
    h('p', { class: 'wrong', role: 'alert' }, why),
    field('Token', input),
  ];
  const answer = await form('Sign in', words, 'Sign in');
  return answer?.token.trim();
}

const KEYS = [
  ['1 – 5', 'Overview, policies, dead letters, alerts, journey'],
  ['/', 'Search, or filter'],
  ['r', 'Redrive the dead letter that is shown, or those that are chosen'],
  ['Tab, Enter', 'Go to, and open'],
  ['?', 'This'],
  ['Esc', 'Close'],
];

export function help() {
  const close = h('button', { class: 'primary' }, 'Close');
  const keys = h('dl', { class: 'keys' }, KEYS.flatMap(([key, what]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, what)]));
  const dialog = h('dialog', { 'aria-label': 'Keys' }, h('form', { method: 'dialog' }, h('h2', {}, 'Keys'), keys,
    h('p', { class: 'faint' }, 'The same figures in a terminal: oona top. For programs: /metrics.'),
    h('div', { class: 'buttons' }, close)));
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
