export {
  type Answer,
  type AnswerOptions,
  Conversation,
  type ConversationOptions,
  type ConversationRecord,
  type ConversationState,
  type Prompt,
} from './chat/conversation.ts';
export { type LoadedSession, loadSession, saveSession } from './chat/session_file.ts';
export { type SessionModel, sessionModel } from './chat/session_model.ts';
export { type StateCheckpointOptions, type RewindableLM, StateCheckpoints } from './chat/state_checkpoints.ts';
export type { Passage } from './chat/transcript.ts';
export {
  type Chat,
  type ChatMessage,
  type ChatTemplate,
  encodeChat,
  readChatTemplate,
  type RenderLimits,
  renderChat,
} from './chat_template.ts';
export { type ByteSource, bytesSource, openFile } from './checkpoint/byte_source.ts';
export { type CheckpointFolder, openCheckpointFolder } from './checkpoint/checkpoint_folder.ts';
export { folderFiles, type ModelFiles } from './checkpoint/model_files.ts';
export type { Dtype, TensorArray } from './checkpoint/dtype.ts';
export { readSafetensors, readTensor, type SafetensorsFile, type TensorEntry } from './checkpoint/safetensors.ts';
export { type TensorData, type TensorLayout, writeSafetensors } from './checkpoint/safetensors_writer.ts';
export { type LayerType, type OlmoHybridConfig, parseConfig, type RopeByLayerType, type RopeParameters } from './config.ts';
export {
  ArgumentError,
  CheckpointError,
  ConfigError,
  describe,
  HubError,
  OlmoHybridError,
  type Problem,
  RuntimeLimitError,
  SessionError,
  TokenizerError,
} from './errors.ts';
export {
  type CausalLM,
  type FinishReason,
  type GenerateOptions,
  type GenerateTextOptions,
  type Generation,
  generate,
  generateText,
  type SuppressionOptions,
  type TextTokenizer,
} from './generate.ts';
export { type GenerationConfig, parseGenerationConfig, readGenerationConfig } from './generation_config.ts';
export type { HubOptions } from './hub/client.ts';
export { type HubEnvironment, hubEnvironment } from './hub/environment.ts';
export { type LocateOptions, locateModel } from './hub/locate.ts';
export { type ModelId, parseModelId } from './hub/model_id.ts';
export type { Need } from './hub/needed_files.ts';
export { type PulledQuantised, type PullQuantisedOptions, pullQuantised } from './hub/pull_quantised.ts';
export { type Pulled, type PullOptions, pull } from './hub/pull.ts';
export {
  type KVOption,
  type LoadedModel,
  type LoadOptions,
  loadModel,
  loadModelFrom,
  type ModelPlan,
  planModel,
  planModelFrom,
  readConfig,
  type Tensors,
  type WeightsOption,
} from './load.ts';
export type { LayerSnapshot } from './model/cache.ts';
export type { OlmoHybridForCausalLM, Snapshot, SnapshotOptions } from './model/olmo_hybrid.ts';
export { embeddedModel } from './package_files.ts';
export type { Placement } from './model/placement.ts';
export type { Parameter } from './model/weights.ts';
export { type Perplexity, type PerplexityOptions, perplexity, type WindowModel } from './perplexity.ts';
export { type QuantizedFolder, type QuantizeOptions, quantizeCheckpoint } from './quantize.ts';
export { Random } from './random.ts';
export type { BankBytes } from './runtime/addressed_bank.ts';
export type { Mode, Tap } from './runtime/bank.ts';
export type { Build } from './runtime/wasm_module.ts';
export type { FloatArray, Tensor } from './runtime/tensor.ts';
export { type Candidate, Sampler, type SamplingOptions } from './sampler.ts';
export type { StreamingDecoder } from './streaming_decoder.ts';
export { startsThinking, type ThinkingPiece, ThinkingText } from './thinking.ts';
export { type DecodeOptions, Tokenizer } from './tokenizer.ts';
export { type Accuracy, type Agreement, type HeldOut, type Verification, type VerifyOptions, verify } from './verify.ts';
export type { Bf16Model, Bf16Op } from './verify_bf16.ts';
export type { ErrorRatio } from './verify_golden.ts';
