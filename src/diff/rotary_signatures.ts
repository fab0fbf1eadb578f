import type { Evidence } from './evidence.ts';
import { attend, type Complex, ropeTurns, sum, turned, turnsBetween } from './formulas.ts';
import type { Prediction, Signature } from './signature.ts';
import type { Values } from './trace_file.ts';

/** Usual ones, tried where a trace does not tell. */
const THETAS = [10000, 500000, 1000000];

/** theta of plain rotary position embeddings, to four digits: pair 1 turns by theta^(-1 / half) radians in each position. */
function thetaOf(turns: readonly Complex[], half: number): number {
  const [re, im] = turns[half + 1] ?? [Number.NaN, Number.NaN];
  return Number((Math.atan2(im, re) ** -half).toPrecision(4));
}

/** In which layer the right implementation turns by other angles, and by which. */
async function turnsElsewhere(e: Evidence): Promise<{ layer: number; turns: Complex[] }[]> {
  return (await e.elsewhere()).map(({ layer, x, y }) => ({ layer, turns: turnsBetween(x, y) }));
}

/** With the theta that the suspected trace shows and, since bfloat16 blurs it, with those that are usual. */
function rope(cause: string, what: string, applies: (e: Evidence) => boolean): Signature[] {
  return [null, ...THETAS].map((usual) => ({
    cause,
    what,
    async predict(e): Promise<Prediction | null> {
      if (!applies(e)) return null;
      const [x] = (await e.inputs()) as [Values];
      const [T, , Dh] = x.shape as [number, number, number];
      const theta = usual ?? thetaOf(turnsBetween(x, await e.output('suspect')), Dh / 2);
      return Number.isFinite(theta) ? { output: turned(x, ropeTurns(T, Dh, theta)), found: `theta ${theta}` } : null;
    },
  }));
}

/** An op that only one trace has is compared with what the other passes on. */
export const ROTARY: readonly Signature[] = [
  {
    cause: 'rope_off',
    what: 'applies no rotary position embedding',
    predict: async (e) => (e.has('suspect', e.op.op) ? null : sum(await e.inputs())),
  },
  ...rope('rope_on', 'applies a rotary position embedding where the model has none', (e) => !e.has('right', e.op.op)),
  ...rope('rope_theta', 'turns by other angles', (e) => e.has('right', e.op.op) && e.has('suspect', e.op.op)),
  {
    cause: 'rope_interleaved',
    what: 'turns neighbours with each other, where the release turns the first half with the second',
    async predict(e) {
      const [[x], [rightX]] = (await Promise.all([e.inputs(), e.rightInputs()])) as [[Values], [Values]];
      return turned(x, turnsBetween(rightX, await e.output('right')), true);
    },
  },
  {
    cause: 'rope_of_another_layer',
    what: 'turns by the angles that belong to another kind of layer',
    async predict(e): Promise<Prediction | null> {
      const [x] = (await e.inputs()) as [Values];
      const suspect = turnsBetween(x, await e.output('suspect'));
      const apart = (turns: readonly Complex[]) =>
        turns.reduce((total, [re, im], i) => total + Math.hypot(re - suspect[i]![0], im - suspect[i]![1]), 0);
      const nearest = (await turnsElsewhere(e)).sort((a, b) => apart(a.turns) - apart(b.turns))[0];
      return nearest === undefined ? null : { output: turned(x, nearest.turns), found: `as in layer ${nearest.layer}` };
    },
  },
];

/** Where no trace shows a rotary embedding. */
export const ROTARY_INSIDE_ATTENTION: readonly Signature[] = THETAS.map((theta) => ({
  cause: 'rope_on',
  what: `applies a rotary position embedding where the model has none, theta ${theta}`,
  async predict(e) {
    const [q, k, v] = (await Promise.all(['q_norm', 'k_norm', 'v_proj'].map((term) => e.taken(`self_attn.${term}`)))) as [
      Values,
      Values,
      Values,
    ];
    const [T, , Dh] = q.shape as [number, number, number];
    if (Dh % 2 !== 0 || e.has('suspect', 'self_attn.rotary_q') || e.has('right', 'self_attn.rotary_q')) return null;
    const turns = ropeTurns(T, Dh, theta);
    const [queries, keys] = [q, k].map((x) => ({ ...x, data: turned(x, turns) })) as [Values, Values];
    return attend(queries, keys, v, T);
  },
}));
