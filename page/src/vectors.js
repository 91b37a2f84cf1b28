// Arithmetic on vectors: cutting, scaling and comparing, as q3e_local/vectors.py does it.

// The score of two vectors cut to their first `dim` numbers and scaled to length 1.
export function cosine(left, right, dim) {
  let product = 0;
  let leftLength = 0;
  let rightLength = 0;
  for (let i = 0; i < dim; i++) {
    product += left[i] * right[i];
    leftLength += left[i] * left[i];
    rightLength += right[i] * right[i];
  }
  return product / Math.max(1e-12, Math.sqrt(leftLength * rightLength));
}

export function facts(vector) {
  let sum = 0;
  let squares = 0;
  let lowest = Infinity;
  let highest = -Infinity;
  for (const value of vector) {
    sum += value;
    squares += value * value;
    lowest = Math.min(lowest, value);
    highest = Math.max(highest, value);
  }
  const mean = sum / vector.length;
  return { norm: Math.sqrt(squares), mean, spread: Math.sqrt(Math.max(0, squares / vector.length - mean * mean)), lowest, highest };
}

// How many values lie in each of `n` equal parts between the lowest and the highest.
export function histogram(vector, n, { lowest, highest }) {
  const counts = new Array(n).fill(0);
  const width = (highest - lowest) / n || 1;
  for (const value of vector) counts[Math.min(n - 1, Math.floor((value - lowest) / width))] += 1;
  return counts.map((count, i) => ({ count, from: lowest + i * width, to: lowest + (i + 1) * width }));
}
