module nodehost
go 1.24.0
require github.com/pulumi/pulumi/sdk/v3 v3.50.0
