//! Eigenvalues and eigenvectors of a small symmetric matrix, by Jacobi's rotations.

/// Sweeps after which rounding is all that is left; convergence is quadratic, and six suffice for any small matrix.
const SWEEPS: usize = 30;

/// A symmetric matrix that is being turned into a diagonal one.
pub(super) struct SymmetricEigen {
    /// `[n, n]`, by rows.
    matrix: Vec<f64>,
    /// The eigenvectors so far, one a row.
    vectors: Vec<f64>,
    n: usize,
}

impl SymmetricEigen {
    /// Decomposes `matrix` `[n, n]`, of which symmetry is taken for granted.
    ///
    /// # Source
    /// Golub and Van Loan, "Matrix Computations", the cyclic Jacobi algorithm (algorithm 8.5.3 of the fourth edition).
    pub(super) fn new(matrix: Vec<f64>, n: usize) -> Self {
        let vectors = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
        let mut eigen = Self { matrix, vectors, n };
        for _ in 0..SWEEPS {
            let mut rotated = false;
            for p in 0..n {
                for q in p + 1..n {
                    rotated |= eigen.rotate(p, q);
                }
            }
            if !rotated {
                break;
            }
        }
        eigen
    }

    /// Makes the element at (`p`, `q`) 0; whether it was not already, to rounding.
    fn rotate(&mut self, p: usize, q: usize) -> bool {
        let n = self.n;
        let at = |row: usize, column: usize| row * n + column;
        let (a, b, off) = (self.matrix[at(p, p)], self.matrix[at(q, q)], self.matrix[at(p, q)]);
        if off.abs() <= f64::EPSILON * (a.abs() * b.abs()).sqrt() || off.abs() < f64::MIN_POSITIVE {
            return false;
        }
        let tau = (b - a) / (2.0 * off);
        let tan = tau.signum() / (tau.abs() + tau.hypot(1.0));
        let cos = 1.0 / tan.hypot(1.0);
        let sin = tan * cos;
        let turn = |values: &mut Vec<f64>, i: usize, j: usize| {
            let (x, y) = (values[i], values[j]);
            (values[i], values[j]) = (cos * x - sin * y, sin * x + cos * y);
        };
        for k in 0..n {
            turn(&mut self.matrix, at(k, p), at(k, q));
        }
        for k in 0..n {
            turn(&mut self.matrix, at(p, k), at(q, k));
            turn(&mut self.vectors, at(p, k), at(q, k));
        }
        true
    }

    /// Each eigenvalue and its eigenvector, of length 1, the largest first; equal ones in the order in which they were found.
    pub(super) fn by_falling_value(self) -> Vec<(f64, Vec<f64>)> {
        let value = |i: usize| self.matrix[i * self.n + i];
        let mut order: Vec<usize> = (0..self.n).collect();
        order.sort_by(|a, b| value(*b).total_cmp(&value(*a)));
        let pair = |i: usize| (value(i), self.vectors[i * self.n..][..self.n].to_vec());
        order.into_iter().map(pair).collect()
    }
}
