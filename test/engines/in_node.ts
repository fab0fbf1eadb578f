import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { loadModel, openFile, readSafetensors, readTensor } from '../../dist/index.js';
import { type Digests, digestsOf } from './digest.ts';

// The digests of every golden model under the Node that runs this: one JSON object on stdout.
const models = fileURLToPath(new URL('../../golden/models', import.meta.url));
const bits: Record<string, Digests> = {};
for (const name of readdirSync(models).sort()) {
  const dir = `${models}/${name}`;
  const golden = await openFile(`${dir}/expected.safetensors`);
  const { tensors } = await readSafetensors(golden);
  const ids = Array.from(await readTensor(tensors.get('input_ids')!), Number);
  await golden.close();
  bits[name] = await digestsOf(ids, (options) => loadModel(dir, { mode: 'strict', ...options }));
}
process.stdout.write(JSON.stringify(bits));
