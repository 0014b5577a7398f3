package egress

// guestCatches says that machines hand to the line what programs send that take
// no notice of the proxy.
const guestCatches = true
