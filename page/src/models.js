export function models() {}
