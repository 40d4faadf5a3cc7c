// What the host is asked. Without a token at first: a host that has a file of them says so.

const TOKEN = 'oona-token';

export class Refused extends Error {
  constructor(status, message, gates) {
    super(message);
    this.status = status;
    this.gates = gates ?? [];
  }
}

/** Whether a host does not know the token, or wants one. */
export const wantsToken = (error) => error instanceof Refused && error.status === 401;

let forget = () => {};

/** What to do when an answer, whatever it was asked for, says that the token is not known. */
export const onUnknownToken = (act) => {
  forget = act;
};

export const setToken = (token) =>
  token ? sessionStorage.setItem(TOKEN, token) : sessionStorage.removeItem(TOKEN);

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

/** How long an answer may take before the host counts as gone, in ms. */
const ANSWER_MS_MAX = 5_000;

/** How long an act may take: a host compiles what it puts in use. */
const ACT_MS_MAX = 60_000;

async function ask(path, options) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers, cache: 'no-store' });
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { error: text.trim() };
  }
  const refused = new Refused(response.status, answer.error ?? answer.detail ?? response.statusText, answer.gates);
  if (wantsToken(refused)) forget();
  throw refused;
}

export const get = (path) => ask(path, { signal: AbortSignal.timeout(ANSWER_MS_MAX) });

export const post = (path, body) =>
  ask(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(ACT_MS_MAX),
  });

/** Why a question was not answered, in words. */
export const why = (error) => (error instanceof Refused ? error.message : 'the host does not answer');

/** What a host answers that knows no such thing: where another path fits, it takes the name for something else. */
const UNSERVED = [400, 404, 405];

/** What `get` says; nothing where this host has no such thing. */
export async function getIfServed(path) {
  try {
    return await get(path);
  } catch (error) {
    if (error instanceof Refused && UNSERVED.includes(error.status)) return null;
    throw error;
  }
}
