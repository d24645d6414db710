@_exported public import SemelCore
