import { parseArgs } from 'node:util';
import { filesOf, hubRepository } from '../support/hub_repository.ts';
import { startScriptedHub } from '../support/scripted_hub.ts';

// Serves folders as one repository, until stdin ends: node build/test/hub/serve.js --id org/name main=FOLDER stage1-step10000=FOLDER. Prints its endpoint.
// --lfs names a file, beside those of safetensors, that Git LFS keeps.
const { values, positionals } = parseArgs({
  options: { id: { type: 'string', default: 'org/name' }, lfs: { type: 'string', multiple: true, default: [] } },
  allowPositionals: true,
});
const folders = positionals.map((text) => text.split('=') as [revision: string, folder: string]);
const revisions = Object.fromEntries(folders.map(([revision, folder]) => [revision, filesOf(folder)]));
const lfs = (path: string) => path.endsWith('.safetensors') || values.lfs.includes(path);
const hub = await startScriptedHub({ repositories: [hubRepository(values.id, revisions, { lfs })] });
console.log(hub.endpoint);
process.stdin.resume().once('end', () => void hub.close());
