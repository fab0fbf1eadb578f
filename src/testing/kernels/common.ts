import type fc from 'fast-check';
import type { KernelTensor } from '../../kernel_calls.ts';
import { anyUniform, anyValues, type Draw, type Maker, mapped } from '../arbitraries.ts';
import { TINY } from '../assert_close.ts';
import type { Law, Outputs } from '../kernel_spec.ts';
import { elements, type Params, shaped, type Tensors, taken, tokensOf, turnedBy } from '../tensors.ts';

/** What an output may be off by where it is too small for a normal f32: implementations may flush it to zero. */
export const FLUSHED = 2 ** -126 + TINY;
/** The same behind a sigmoid whose e^-x overflows f32: x sigmoid(x) is then at most 3e-36, and may be 0. */
export const CLOSED = 2 ** -118;

/** Values of one kind, for any shape. */
type TensorMaker = (...shape: number[]) => KernelTensor;

/** Any of these kinds of values. */
export function anyOf(draws: readonly Draw[]): fc.Arbitrary<TensorMaker> {
  return anyValues(draws).map(shapedBy);
}

export function evenly(low: number, high: number): fc.Arbitrary<TensorMaker> {
  return anyUniform(low, high).map(shapedBy);
}

export function shapedBy(make: Maker): TensorMaker {
  return (...shape) => shaped(make(1, elements(shape)), ...shape);
}

/** Some inputs replaced. */
export function changed<I extends Tensors>(inputs: I, changes: Partial<Record<keyof I & string, KernelTensor>>): I {
  return { ...inputs, ...changes };
}

/** Every element doubled, which is exact. */
export function doubled(x: KernelTensor): KernelTensor {
  return mapped(x, (value) => 2 * value);
}

/** No token, and no row of a head, depends on another: one by itself gives what it gives among others. */
export function rowsDoNotMeet<I extends Tensors, O extends Outputs, P extends Params>(
  perToken: readonly (keyof I & string)[],
  paramsAt: (params: P, token: number) => P = (params) => params,
): Law<I, O, P> {
  return {
    name: 'a token alone gives what it gives among others',
    async holds(port, { inputs, params, at }) {
      const T = inputs[perToken[0]!]!.shape[0]!;
      if (T === 0) return;
      const t = at % T;
      const row = (x: KernelTensor) => tokensOf(x, t, t + 1);
      const alone = {
        inputs: changed(
          inputs,
          eachOf(perToken, (name) => row(inputs[name]!)),
        ),
        params: paramsAt(params, t),
      };
      const among = await port.run(inputs, params);
      port.assertNear(await port.run(alone.inputs, alone.params), eachOf(Object.keys(among), (name) => row(among[name]!)) as O, alone);
    },
  };
}

/** Columns, channels or heads that change places change places in the result. */
export function turning<I extends Tensors, O extends Outputs, P extends Params>(
  what: string,
  axes: Partial<Record<(keyof I | keyof O) & string, number>>,
): Law<I, O, P> {
  return {
    name: `${what} that change places change places in the result`,
    async holds(port, { inputs, params, at }) {
      const turn = (x: KernelTensor, axis: number) => taken(x, axis, turnedBy(x.shape[axis]!, at % Math.max(1, x.shape[axis]!)));
      const turned = <X extends Tensors>(tensors: X): X => {
        const changes = Object.entries(tensors).map(([name, x]) => {
          const axis = axes[name as keyof typeof axes];
          return [name, x && axis !== undefined ? turn(x, axis) : x];
        });
        return Object.fromEntries(changes) as X;
      };
      const other = { inputs: turned(inputs), params };
      port.assertNear(await port.run(other.inputs, params), turned(await port.run(inputs, params)), other);
    },
  };
}

/** Twice an input gives twice the output that is linear in it. */
export function linearIn<I extends Tensors, O extends Outputs, P extends Params>(
  input: keyof I & string,
  output: keyof O & string,
): Law<I, O, P> {
  return {
    name: `${output} is twice as much for twice ${input}`,
    async holds(port, { inputs, params }) {
      const twice = {
        inputs: changed(inputs, { [input]: doubled(inputs[input]!) } as Partial<Record<keyof I & string, KernelTensor>>),
        params,
      };
      const [once, got] = [await port.run(inputs, params), await port.run(twice.inputs, params)];
      port.assertNear({ [output]: got[output] } as Partial<O>, { [output]: doubled(once[output]!) } as unknown as Partial<O>, twice);
    },
  };
}

export function eachOf<N extends string, V>(names: readonly N[], value: (name: N) => V): Record<N, V> {
  return Object.fromEntries(names.map((name) => [name, value(name)])) as Record<N, V>;
}
