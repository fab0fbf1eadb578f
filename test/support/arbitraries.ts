// Shapes and values are the kit's.
export * from '../../src/testing/arbitraries.ts';
