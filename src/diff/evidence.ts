import type { TracedOp } from '../trace_format.ts';
import type { TraceFile, Values } from './trace_file.ts';

/** Thrown where neither trace holds what a signature needs. */
export class Absent extends Error {}

/** The two traces around an op: what an implementation that is right had there, and one that is suspected. */
export class Evidence {
  readonly op: TracedOp;
  /** What rounding may do to the op: relative RMS. */
  readonly bound: number;
  private readonly ops: readonly TracedOp[];
  private readonly good: TraceFile;
  private readonly suspect: TraceFile;

  constructor(op: TracedOp, bound: number, ops: readonly TracedOp[], good: TraceFile, suspect: TraceFile) {
    this.op = op;
    this.bound = bound;
    this.ops = ops;
    this.good = good;
    this.suspect = suspect;
  }

  /** What an op of the same layer gave in the right implementation. @throws {Absent} */
  async right(term: string): Promise<Values> {
    return await this.read([this.good], this.nameOf(term));
  }

  /** What it gave in the suspected one; or in the right one, since they agree on all that comes before the op. @throws {Absent} */
  async taken(term: string): Promise<Values> {
    return await this.read([this.suspect, this.good], this.nameOf(term));
  }

  /** What the op gave in either. */
  async output(side: 'right' | 'suspect'): Promise<Values> {
    return await this.read([side === 'right' ? this.good : this.suspect], this.op.name);
  }

  /** The inputs of the op, as the suspected implementation took them. @throws {Absent} */
  async inputs(): Promise<Values[]> {
    return await Promise.all(this.op.inputs.map((name) => this.read([this.suspect, this.good], name)));
  }

  /** The inputs of the op as the right implementation had them. @throws {Absent} */
  async rightInputs(): Promise<Values[]> {
    return await Promise.all(this.op.inputs.map((name) => this.read([this.good], name)));
  }

  /** Whether the suspected implementation, or the right one, shows an op of the layer. */
  has(side: 'right' | 'suspect', term: string): boolean {
    return (side === 'right' ? this.good : this.suspect).shapes.has(this.nameOf(term));
  }

  /** The same op in other layers of the right implementation: its input and its output. */
  async elsewhere(): Promise<{ layer: number; x: Values; y: Values }[]> {
    const others = this.ops.filter((other) => other.op === this.op.op && other !== this.op && this.good.shapes.has(other.name));
    return await Promise.all(
      others.map(async (other) => ({
        layer: other.layer!,
        x: await this.read([this.good], other.inputs[0]!),
        y: await this.read([this.good], other.name),
      })),
    );
  }

  private nameOf(term: string): string {
    const { layer } = this.op;
    const first = this.ops.find((other) => other.layer === layer)!;
    return term === 'previous' ? first.inputs[0]! : `model.layers.${layer}.${term}`;
  }

  /** From the first trace that has it. A rotary op that a trace does not show passes on what it is given. */
  private async read(traces: readonly TraceFile[], name: string): Promise<Values> {
    const passedOn = this.ops.find((other) => other.name === name && other.kind === 'rotary')?.inputs[0];
    for (const trace of traces) {
      const shown = [name, passedOn].find((one) => one !== undefined && trace.shapes.has(one));
      if (shown !== undefined) return await trace.read(shown);
    }
    throw new Absent(name);
  }
}
