module ringfence.dev/toolchain/pulumi-language-python

go 1.24.0

require github.com/pulumi/pulumi/sdk/v3 v3.79.0
