// Mistakes for test/conform/runtime.mjs, by the level that must see them first. `op` and `model` replace kernels of the reference: everywhere,
// or only where the model calls them, so that an op by itself is right.

/** The gated delta rule with a state that is read before it decays. */
function decayAfterRead(o, q, k, v, g, beta, S, { Hk, H, Dk, Dv }) {
  for (let t = 0; t < q.rows; t++) {
    for (let h = 0; h < H; h++) {
      const at = (t * Hk + Math.floor((h * Hk) / H)) * Dk;
      for (let j = 0; j < Dv; j++) {
        let read = 0;
        for (let i = 0; i < Dk; i++) read += S.data[(h * Dk + i) * Dv + j] * k.data[at + i];
        const u = beta.data[t * H + h] * (v.data[(t * H + h) * Dv + j] - read);
        let sum = 0;
        for (let i = 0; i < Dk; i++) {
          const place = (h * Dk + i) * Dv + j;
          S.data[place] = Math.exp(g.data[t * H + h]) * S.data[place] + k.data[at + i] * u;
          sum += S.data[place] * q.data[at + i];
        }
        o.data[(t * H + h) * Dv + j] = sum / Math.sqrt(Dk);
      }
    }
  }
}

/** A sampler that filters by the model's own distribution, and applies the temperature to what is left. */
class TemperatureLast {
  constructor(Sampler, V, options, random) {
    this.temperature = options.temperature ?? 1;
    this.filter = new Sampler(V, { ...options, temperature: this.temperature && 1 }, random);
    this.random = random;
  }

  observe(id) {
    this.filter.observe(id);
  }

  distribution(logits) {
    const left = this.filter.distribution(logits);
    if (this.temperature === 0) return left;
    const weights = left.map(({ probability }) => (probability / left[0].probability) ** (1 / this.temperature));
    const mass = weights.reduce((sum, weight) => sum + weight, 0);
    return left.map(({ id }, i) => ({ id, probability: weights[i] / mass }));
  }

  sample(logits) {
    const u = this.random.uniform();
    let sum = 0;
    for (const { id, probability } of this.distribution(logits)) {
      sum += probability;
      if (u < sum) return id;
    }
    throw new Error('the probabilities do not sum to 1');
  }
}

export const MISTAKES = {
  // config
  rope_on: {
    config: (json) => ({ ...json, rope_parameters: { rope_theta: 10000, rope_type: 'default', ...nonNull(json.rope_parameters) } }),
  },
  key_heads_as_value_heads: {
    config: (json) => ('linear_num_key_heads' in json ? { ...json, linear_num_value_heads: json.linear_num_key_heads } : json),
  },
  // tokenizer
  bos_added: { ids: (ids) => [0, ...ids] },
  // template
  trimmed_prompt: { text: (text) => text.trimEnd() },
  // op
  decay_after_read: {
    op: () => ({
      gated_delta_rule_recurrent: decayAfterRead,
      gated_delta_rule_chunked: (o, q, k, v, g, beta, S, _scratch, shape) => decayAfterRead(o, q, k, v, g, beta, S, shape),
    }),
  },
  l2_eps_on_mean: { op: ({ l2_norm }) => ({ l2_norm: (y, x, D, eps) => l2_norm(y, x, D, D * eps) }) },
  // layer
  'o_norm_eps_1e-6': {
    model: ({ rms_norm_gated }) => ({ rms_norm_gated: (y, x, gate, weight) => rms_norm_gated(y, x, gate, weight, 1e-6) }),
  },
  beta_without_2: { model: ({ gdn_beta }) => ({ gdn_beta: (beta, b) => gdn_beta(beta, b, 1) }) },
  // prefill
  rotary_wraps_at_256: {
    model: ({ rotary }) => ({
      rotary(x, cos, sin, position) {
        const row = (t) => ({ data: x.data.subarray(t * x.cols, (t + 1) * x.cols), ptr: 0, rows: 1, cols: x.cols });
        for (let t = 0; t < x.rows; t++) rotary(row(t), cos, sin, (position + t) % 256);
      },
    }),
  },
  // decode
  conv_state_after_activation: {
    model: ({ causal_conv1d }) => ({
      causal_conv1d(y, x, weight, state) {
        const before = state.data.slice();
        causal_conv1d(y, x, weight, state);
        const all = [...before, ...y.data.subarray(0, x.rows * x.cols)];
        state.data.set(all.slice(-before.length));
      },
    }),
  },
  // prefill_decode
  oldest_input_lost_with_two_tokens: {
    model: ({ causal_conv1d }) => ({
      causal_conv1d(y, x, weight, state) {
        causal_conv1d(y, x, weight, state);
        if (x.rows === 2 && state.rows > 2) state.data.fill(0, 0, x.cols);
      },
    }),
  },
  // state
  recurrent_state_not_copied: {
    snapshot(model) {
      const { position, layers } = model.snapshot();
      const isRecurrent = (i) => model.config.layer_types[i] === 'linear_attention';
      return {
        position,
        get layers() {
          const now = model.snapshot().layers;
          return layers.map((layer, i) => (isRecurrent(i) ? now[i] : layer));
        },
      };
    },
  },
  // sampler
  temperature_last: { sampler: (Sampler, V, options, random) => new TemperatureLast(Sampler, V, options, random) },
};

function nonNull(object) {
  return Object.fromEntries(Object.entries(object ?? {}).filter(([, value]) => value !== null));
}
