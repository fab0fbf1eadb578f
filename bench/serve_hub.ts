import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

// node build/serve_hub.js FOLDER: serves a folder as the model org/name for HF_ENDPOINT, straight from disk, to measure `pull` on files that are larger
// than memory. Only what `pull` asks for; test/support/scripted_hub.ts is the one that behaves like the Hub.
const [, , folder = 'checkpoint'] = process.argv;
const sha = createHash('sha1').update(folder).digest('hex');
const files = new Map<string, { size: number; oid: string; lfs: boolean }>();
for (const name of await readdir(folder)) {
  const { size } = await stat(join(folder, name));
  const lfs = name.endsWith('.safetensors');
  const hash = lfs ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
  for await (const piece of createReadStream(join(folder, name), { highWaterMark: 1 << 22 })) hash.update(piece as Uint8Array);
  files.set(name, { size, oid: hash.digest('hex'), lfs });
}

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url!, 'http://localhost');
  if (pathname.startsWith('/api/models/org/name/revision/')) return answer(response, { _id: '1', id: 'org/name', sha, lastModified: 0 });
  if (pathname.startsWith('/api/models/org/name/tree/')) {
    const entries = [...files].map(([path, { size, oid, lfs }]) => ({
      type: 'file',
      path,
      size,
      oid: lfs ? sha : oid,
      ...(lfs ? { lfs: { oid, size, pointerSize: 134 } } : {}),
    }));
    return answer(response, entries);
  }
  const name = decodeURIComponent(pathname.split('/').at(-1)!);
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  if (!files.has(name) || first === undefined) return void response.writeHead(404).end();
  const [start, end] = [Number(first), Number(last)];
  const { size } = files.get(name)!;
  response.writeHead(206, { 'content-range': `bytes ${start}-${end}/${size}`, 'content-length': end - start + 1 });
  const stream = createReadStream(join(folder, name), { start, end, highWaterMark: 1 << 20 });
  response.once('close', () => stream.destroy());
  return void stream.pipe(response);
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}\n`));

function answer(response: ServerResponse, json: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(json));
}
