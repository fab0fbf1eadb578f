// The whole comparison policy is the kit's.
export * from '../../src/testing/assert_close.ts';
