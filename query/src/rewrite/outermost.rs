//! The expressions of a piece of tree that stand in no sub-query of it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, VisitMut, VisitorMut};

/// Calls `each` with every expression outside of sub-queries, the inner ones first, until it breaks off.
pub fn each<V: VisitMut, B>(
    part: &mut V,
    each: impl FnMut(&mut Expr) -> ControlFlow<B>,
) -> ControlFlow<B> {
    part.visit(&mut Outermost { depth: 0, each, broken: std::marker::PhantomData })
}

struct Outermost<F, B> {
    /// Sub-queries around the place.
    depth: usize,
    each: F,
    broken: std::marker::PhantomData<B>,
}

impl<B, F: FnMut(&mut Expr) -> ControlFlow<B>> VisitorMut for Outermost<F, B> {
    type Break = B;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<B> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<B> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<B> {
        if self.depth == 0 { (self.each)(expr) } else { ControlFlow::Continue(()) }
    }
}
