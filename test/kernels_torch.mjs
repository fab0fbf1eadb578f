// Holds the kernels of the PyTorch release to the property kit: npm run test:torch -- PYTHON, in whose environment golden/requirements.txt is
// installed. Prints the table of docs/property_kit.md; exits with 1 if a law is broken.
import { fileURLToPath } from 'node:url';
import { checkKernel, KernelFailure, kernelNames, subprocessAdapter } from '../dist/testing/index.js';

const [python = 'python3', runs = '100', seed = '1'] = process.argv.slice(2);
const port = subprocessAdapter(python, [fileURLToPath(new URL('../golden/kernels_torch.py', import.meta.url))], {
  name: 'PyTorch',
  timeout_ms: 600_000,
});

console.log('| kernel | laws | cases of each | largest error, of its bound |\n|---|---|---|---|');
try {
  for (const kernel of kernelNames) {
    try {
      const { laws, largest_share } = await checkKernel(kernel, port, { runs: Number(runs), seed: Number(seed) });
      console.log(`| \`${kernel}\` | ${laws.length} | ${runs} | ${largest_share.toPrecision(2)} |`);
    } catch (error) {
      if (!(error instanceof KernelFailure)) throw error;
      console.error(error.message);
      process.exitCode = 1;
    }
  }
} finally {
  await port.close();
}
