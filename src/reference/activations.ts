/** 1 / (1 + e^-x) */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** x sigmoid(x) */
export function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/** log(1 + e^x); x itself above 20, as torch.nn.functional.softplus */
export function softplus(x: number): number {
  return x > 20 ? x : Math.log1p(Math.exp(x));
}
