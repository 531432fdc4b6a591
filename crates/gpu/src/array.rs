use std::{fmt, marker::PhantomData};

use bytemuck::Pod;

use crate::{Argument, GpuError, Machine, Memory};

/// Numbers, or structures of them, in a machine's memory.
pub struct Array<T> {
    memory: Memory,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Array<T> {
    /// `len` times zero.
    ///
    /// # Errors
    /// If there is no memory left.
    pub fn zeros(machine: &dyn Machine, len: usize) -> Result<Self, GpuError> {
        // Kernels are given addresses of arrays that no run needs.
        let memory = machine.allocate((len * size_of::<T>()).max(1))?;
        Ok(Self { memory, len, of: PhantomData })
    }

    /// Those of `values`.
    ///
    /// # Errors
    /// If there is no memory left, or the machine fails.
    pub fn from(machine: &dyn Machine, values: &[T]) -> Result<Self, GpuError> {
        let mut array = Self::zeros(machine, values.len())?;
        array.write(machine, 0, values)?;
        Ok(array)
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces those from `at` on by `values`.
    ///
    /// # Errors
    /// If the machine fails.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn write(&mut self, machine: &dyn Machine, at: usize, values: &[T]) -> Result<(), GpuError> {
        assert!(at + values.len() <= self.len, "a part of an array");
        machine.write(&mut self.memory, at * size_of::<T>(), bytemuck::cast_slice(values))
    }

    /// Copies those from `at` on to `values`.
    ///
    /// # Errors
    /// If the machine fails, now or in a kernel before.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn read(&self, machine: &dyn Machine, at: usize, values: &mut [T]) -> Result<(), GpuError> {
        assert!(at + values.len() <= self.len, "a part of an array");
        machine.read(&self.memory, at * size_of::<T>(), bytemuck::cast_slice_mut(values))
    }

    /// All of them.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn to_vec(&self, machine: &dyn Machine) -> Result<Vec<T>, GpuError> {
        let mut values = vec![T::zeroed(); self.len];
        self.read(machine, 0, &mut values)?;
        Ok(values)
    }

    /// Where they lie, for a kernel that reads or writes `count` of them from `at` on.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn part(&self, at: usize, count: usize) -> Argument {
        assert!(at + count <= self.len, "a kernel needs {count} values from {at} on, of {}", self.len);
        Argument::Address(self.memory.place(at * size_of::<T>(), count * size_of::<T>()))
    }

    /// The same of all, of which a kernel needs `count`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn all(&self, count: usize) -> Argument {
        self.part(0, count)
    }

    /// Where they lie, for structures that say so.
    pub const fn address(&self) -> u64 {
        self.memory.address
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.len, std::any::type_name::<T>())
    }
}
