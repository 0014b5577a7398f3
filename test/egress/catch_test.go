package egress

// guestCatches says that machines hand to the line what programs send that take
// no notice of the proxy. While they do not, it must fail.
const guestCatches = false
