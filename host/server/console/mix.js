// What policies decide, as it changes: differences of what is counted of the version in use.

import { PALETTE, REST } from './charts.js';

/** How many samples are held: as many seconds. */
export const SAMPLES_MAX = 180;

/** How many reasons have a line of their own. */
export const REASONS_MAX = 5;

/** What was seen of one kind. */
class Kind {
  samples = [];
  swaps = [];
  /** Whether anything was decided at all. */
  isUsed = false;
  #before = null;
  #tones = new Map();

  observe(atMs, policy, mix) {
    const who = `${policy.version.digest}#${policy.generation}`;
    const before = this.#before;
    const same = before?.who === who;
    const seconds = before ? Math.max((atMs - before.atMs) / 1000, 0.001) : 1;
    const rates = {};
    for (const [reason, count] of Object.entries(mix)) {
      const more = count - (same ? before.mix[reason] ?? 0 : 0);
      rates[reason] = Math.max(more, 0) / seconds;
    }
    if (before) this.#keep(this.samples, { at: atMs / 1000, rates });
    this.isUsed ||= before !== null && Object.values(rates).some((rate) => rate > 0);
    if (before && !same) this.#keep(this.swaps, { at: atMs / 1000, label: `${policy.version.name} ${policy.version.version}` });
    this.#before = { who, atMs, mix };
    this.#free();
  }

  /** The reasons that were given most of all that is held, and their colours, in an order that stays. */
  shown() {
    const top = this.reasons().slice(0, REASONS_MAX).map((reason) => ({ reason, tone: this.tone(reason) }));
    return top.sort((one, next) => one.tone.localeCompare(next.tone));
  }

  /** The colour of a reason, wherever it is shown. */
  tone(reason) {
    if (!this.#tones.has(reason)) {
      const taken = new Set(this.#tones.values());
      const left = PALETTE.find((name) => !taken.has(name));
      if (!left) return REST;
      this.#tones.set(reason, left);
    }
    return this.#tones.get(reason);
  }

  /** Gives back the colours of reasons that are shown nowhere any more. */
  #free() {
    const seen = new Set([...this.reasons(), ...Object.keys(this.#before.mix)]);
    for (const reason of this.#tones.keys()) {
      if (!seen.has(reason)) this.#tones.delete(reason);
    }
  }

  #keep(list, entry) {
    list.push(entry);
    if (list.length > SAMPLES_MAX) list.shift();
  }

  /** The reasons that were given most, of all that is held. */
  reasons() {
    const sums = {};
    for (const { rates } of this.samples) {
      for (const [reason, rate] of Object.entries(rates)) sums[reason] = (sums[reason] ?? 0) + rate;
    }
    return Object.entries(sums).filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]).map(([reason]) => reason);
  }
}

/** What was seen of all kinds, since this tab was opened. */
export class Mixes {
  kinds = new Map();

  observe(overview) {
    for (const policy of overview.status.policies) {
      if (!this.kinds.has(policy.kind)) this.kinds.set(policy.kind, new Kind());
      const mix = overview.decisions[policy.kind] ?? {};
      this.kinds.get(policy.kind).observe(overview.at_ms, policy, mix);
    }
  }

  /** Times, and one row for each of `reasons`, each on top of those after it. */
  stacked(kind, reasons) {
    const { samples } = this.kinds.get(kind);
    const rows = reasons.map((_, index) =>
      samples.map(({ rates }) => reasons.slice(index).reduce((sum, reason) => sum + (rates[reason] ?? 0), 0)));
    return [samples.map(({ at }) => at), ...rows];
  }
}
