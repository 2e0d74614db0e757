"""Generated code of the bundle's schema, proto/mobilemodel/v1/bundle.proto."""
