"""The modules that every run of the tests takes: one of each kind of difficulty. Needs no PyTorch."""

FAST = (
    "GELU",
    "PReLU(channels)",
    "GLU",
    "BatchNorm2d",
    "LayerNorm",
    "GroupNorm",
    "InstanceNorm2d(affine)",
    "MaxPool2d(3, 2, 1)",
    "AvgPool2d(count_include_pad=False)",
    "AdaptiveAvgPool2d(2)",
    "Conv2d(groups, dilation)",
    "Conv2d, BatchNorm2d, ReLU",
    "ConvTranspose2d(groups, dilation)",
    "MLP, cross entropy",
    "Embedding",
    "EmbeddingBag(mean)",
    "PixelShuffle",
    "Upsample(bilinear)",
    "ReflectionPad2d",
    "Unfold",
    "CosineSimilarity",
    "LSTM",
    "GRU(bidirectional)",
    "MultiheadAttention",
    "TransformerEncoderLayer",
)

FAST_HUGGINGFACE = ("BERT (eager)", "GPT-2 (eager)", "LLaMA (eager)")

FAST_F32 = ("BatchNorm2d", "Conv2d(groups, dilation)", "LSTM", "TransformerEncoderLayer")
"""Those that are run in f32 as well, as users do."""
