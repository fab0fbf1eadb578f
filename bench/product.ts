import { parseArgs } from 'node:util';
import { WasmBank } from '../dist/runtime/wasm_bank.js';
import { kernelModule } from '../dist/runtime/wasm_module.js';
import { linear } from './kernels.bench.js';
import { measure } from './measure.js';

// The f32 product that bench/peers holds against other engines' matmul: one JSON object on stdout.
//   node build/product.js --threads 1
const { threads } = parseArgs({ options: { threads: { type: 'string', default: '1' } } }).values;
if (threads !== '1') throw new Error(`--threads: expected 1, found ${threads}. The kernels run on one thread.`);

const bank = new WasmBank(await kernelModule(), 1, { persistent: 8e7, scratch: 2 ** 22 });
const [product] = await measure([linear(bank, 256, 3840, 3840, 'F32')]);
process.stdout.write(`${JSON.stringify({ gflops: product!.rate / 1e9 })}\n`);
