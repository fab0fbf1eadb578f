import { expect, test } from 'vitest';
import type { Kernels } from '../src/runtime/kernels.ts';
import { KERNEL_MUTANTS } from './gallery/kernel_mutants.ts';
import { type Mutant, type Session, CUT } from './gallery/mutant.ts';
import { runMutant } from './gallery/run.ts';
import { sharedFolder } from './support/command_line.ts';

// What goes wrong between calls, in every way that a text may be cut.

const folder = await sharedFolder();
const WAYS: readonly [name: string, run: (session: Session) => void][] = [
  ['a prompt and then tokens one by one', ({ ids, see }) => [ids.slice(0, CUT), ...ids.slice(CUT).map((id) => [id])].forEach(see)],
  ['tokens one by one', ({ ids, see }) => ids.map((id) => [id]).forEach(see)],
  ['three calls', ({ ids, see }) => [ids.slice(0, 20), ids.slice(20, 41), ids.slice(41)].forEach(see)],
];

const stateLost = (right: Kernels): Partial<Kernels> => ({
  gated_delta_rule_recurrent: (o, q, k, v, g, beta, S, shape) => {
    S.data.fill(0);
    right.gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape);
  },
  gated_delta_rule_chunked: (o, q, k, v, g, beta, S, scratch, shape) => {
    S.data.fill(0);
    right.gated_delta_rule_chunked(o, q, k, v, g, beta, S, scratch, shape);
  },
});
const known = (name: string) => KERNEL_MUTANTS.find((mutant) => mutant.name === name)!;
const MUTANTS: readonly Mutant[] = [
  known('conv_state_lost'),
  known('conv_state_after_activation'),
  { ...known('state_transposed'), name: 'state_lost', causes: ['state_lost'], kernels: stateLost },
];

test.each(MUTANTS.flatMap((mutant) => WAYS.map(([name, run]) => ({ mutant, name: mutant.name, way: name, run }))))(
  '$name, $way',
  async ({ mutant, run }) => {
    const { diff } = await runMutant({ ...mutant, run }, folder);
    expect(diff.first).toMatchObject({ difference: { name: mutant.op }, cause: { side: 'B', cause: mutant.causes[0], confirmed: true } });
  },
);
