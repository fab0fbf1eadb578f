// A port of two kernels in another process, as docs/property_kit.md describes the protocol: node kernel_server.mjs [mistake]
// It shares no code with the package. Mistakes: decay_after_read, eps_outside_the_root; die, chatter, refuse, silent and mutter are those of a bad server.

const mistake = process.argv[2] ?? '';
let received = Buffer.alloc(0);

process.stdin.on('data', (bytes) => {
  received = Buffer.concat([received, bytes]);
  while (received.length >= 8) {
    const end = 8 + Number(received.readBigUInt64LE(0));
    if (received.length < end) return;
    answer(received.subarray(8, end));
    received = received.subarray(end);
  }
});

function answer(request) {
  const [metadata, tensors] = readSafetensors(request);
  const params = JSON.parse(metadata.params);
  if (mistake === 'die') {
    console.error('out of coffee');
    process.exit(3);
  }
  if (mistake === 'silent') return;
  if (mistake === 'mutter') return void process.stdout.write('ok\n');
  if (mistake === 'chatter') console.log('computing …');
  if (mistake === 'refuse') return send({ error: `no kernel ${metadata.kernel}` }, {});
  const outputs = metadata.kernel === 'l2_norm' ? l2_norm(tensors, params) : gated_delta_rule(tensors);
  send({}, outputs);
}

function l2_norm({ x }, { eps }) {
  const [T, D] = x.shape;
  const y = new Float32Array(T * D);
  for (let t = 0; t < T; t++) {
    const row = x.data.subarray(t * D, (t + 1) * D);
    const squares = row.reduce((sum, value) => sum + value * value, 0);
    const norm = mistake === 'eps_outside_the_root' ? Math.sqrt(squares) + eps : Math.sqrt(squares + eps);
    row.forEach((value, i) => {
      y[t * D + i] = value / norm;
    });
  }
  return { y: { shape: x.shape, data: y } };
}

function gated_delta_rule({ q, k, v, g, beta, state }) {
  const [T, Hk, Dk] = k.shape;
  const [, H, Dv] = v.shape;
  const S = Float64Array.from(state.data);
  const o = new Float32Array(T * H * Dv);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      const key = (t * Hk + Math.floor((h * Hk) / H)) * Dk;
      const decay = Math.exp(g.data[t * H + h]);
      for (let j = 0; j < Dv; j++) {
        const at = (i) => (h * Dk + i) * Dv + j;
        let read = 0;
        for (let i = 0; i < Dk; i++) read += S[at(i)] * k.data[key + i];
        if (mistake !== 'decay_after_read') read *= decay;
        const u = beta.data[t * H + h] * (v.data[(t * H + h) * Dv + j] - read);
        let sum = 0;
        for (let i = 0; i < Dk; i++) {
          S[at(i)] = S[at(i)] * decay + k.data[key + i] * u;
          sum += S[at(i)] * q.data[key + i];
        }
        o[(t * H + h) * Dv + j] = sum / Math.sqrt(Dk);
      }
    }
  }
  return { o: { shape: v.shape, data: o }, state_after: { shape: state.shape, data: Float32Array.from(S) } };
}

function readSafetensors(bytes) {
  const length = Number(bytes.readBigUInt64LE(0));
  const { __metadata__: metadata, ...entries } = JSON.parse(bytes.toString('utf8', 8, 8 + length));
  const tensors = {};
  for (const [name, { shape, data_offsets }] of Object.entries(entries)) {
    const [begin, end] = data_offsets.map((offset) => 8 + length + offset);
    tensors[name] = { shape, data: new Float32Array(Uint8Array.from(bytes.subarray(begin, end)).buffer) };
  }
  return [metadata, tensors];
}

function send(metadata, tensors) {
  const header = { __metadata__: metadata };
  let end = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const lengths = Buffer.alloc(16);
  lengths.writeBigUInt64LE(BigInt(8 + json.length + end), 0); // of the answer
  lengths.writeBigUInt64LE(BigInt(json.length), 8); // of its header
  const parts = Object.values(tensors).map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  process.stdout.write(Buffer.concat([lengths, json, ...parts]));
}
