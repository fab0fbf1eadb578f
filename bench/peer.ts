import { embeddedModel, loadModel } from '../dist/index.js';
import { WasmBank } from '../dist/runtime/wasm_bank.js';
import { kernelModule } from '../dist/runtime/wasm_module.js';
import { linear } from './kernels.bench.js';
import { measure } from './measure.js';
import { decode, prefill } from './model.bench.js';

// This engine's half of bench/peers/transformers_peer.py: one JSON object on stdout.
const { model } = await loadModel(embeddedModel, { mode: 'strict', context: 512 });
const bank = new WasmBank(await kernelModule(), 1, { persistent: 8e7, scratch: 2 ** 22 });
const [prefilled, decoded, product] = await measure([prefill(model, 256, ''), decode(model, ''), linear(bank, 256, 3840, 3840, 'F32')]);
const result = {
  'prefill, embedded model, token/s': prefilled!.rate,
  'decode, embedded model, token/s': decoded!.rate,
  'f32 product 256x3840x3840, GFLOP/s': product!.rate / 1e9,
};
process.stdout.write(JSON.stringify(result));
