export function look() {}
